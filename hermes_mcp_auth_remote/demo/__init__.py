"""An authorization server and an MCP server to try things on: `hermes-mcp-auth demo`, and our own tests.

As strict as the standards; every way in which a real server deviates is a knob in `behaviour`. Nothing here
is for production, and nothing else in the package imports it. Read in this order:

    behaviour               the knobs, faults, and what was recorded
    ledger                  clients, codes and tokens: who holds what, until when
    device_ledger           device codes and user codes
    checks                  authorization requests and client authentication     RFC 6749, 7636, 8707, 9126
    recorder                every request noted, every fault played
    controls                knobs, faults and counters in one hand
    registration            clients that register themselves                      RFC 7591
    tokens                  code or refresh_token -> tokens; revocation           RFC 6749, 7009
    consents                questions that wait for a person
    device                  device codes, and the page for user codes             RFC 8628
    authorization_server    metadata, pushed requests, the consent                RFC 8414, 9126, 6749, 9207
    pages                   what a person sees there
    mcp_server              the protected resources                               RFC 9728, RFC 6750, MCP
    serving                 all of it on loopback, in a thread
"""
