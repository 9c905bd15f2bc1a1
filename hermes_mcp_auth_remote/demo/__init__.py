"""An authorization server and an MCP server for `hermes-mcp-auth demo`.

Both servers are as strict as the standards. `Behaviour` has settings for ways in which real servers deviate.
Do not use them in production. Only the `demo` command imports this package. Tests add faults, more settings
and a record of every request: see tests/parts/authorization_server. Read the modules in this order:

    behaviour               the settings
    ledger                  clients, codes and tokens with their lifetimes        RFC 6749
    device_ledger           device codes and user codes                           RFC 8628
    validation              authorization requests and client authentication      RFC 6749, 7636, 8707, 9126
    state                   settings and state of one server
    registration            dynamic client registration                           RFC 7591
    tokens                  token and revocation endpoints                        RFC 6749, 7009
    consent                 consent requests that wait for the user
    device                  device authorization, and the page for user codes     RFC 8628
    authorization_server    metadata, pushed requests, consent                    RFC 8414, 9126, 6749, 9207
    pages                   the HTML pages for the user
    mcp_server              the protected resources                               RFC 9728, RFC 6750, MCP
    body_limit              refuses large request bodies
    servers                 runs both servers on loopback, in a thread
"""
