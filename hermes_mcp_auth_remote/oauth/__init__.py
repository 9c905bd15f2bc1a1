"""OAuth 2.1 for MCP clients, sans-I/O: values in, values out; no network, clock, files or randomness.

The modules, in the order of the steps of a login, with their sources:

    wire            requests, responses, exchanges; bounded reading
    urls            which URLs may be shown, opened or fetched            SBP "Authorization URL Validation"
    challenge       WWW-Authenticate -> Challenge                         RFC 9110 §11.6.1, 6750 §3, 9728 §5.1
    metadata        protected resource, authorization server              RFC 9728, 8414, OIDC Discovery
    client          CIMD, client registration, client authentication      RFC 7591, 6749 §2.3, 7523
    authorization   scope, code_challenge, resource -> authorization URL  RFC 6749 §4.1.1, 7636, 8707, 9126
    device          a user code to enter on another device                RFC 8628 §3.1, §3.2
    device_polling  polling until the user has decided -> Tokens          RFC 8628 §3.4, §3.5
    paste           redirect URLs from text that phones and chats changed
    redirect        hostile text -> AuthorizationResponse (state, iss)    RFC 6749 §4.1.2, 9207
    jws             claims and a key -> signed JWT                        RFC 7515, 7638
    dpop            a proof of the key for each request                   RFC 9449
    token           code or refresh_token -> Tokens; revocation           RFC 6749 §4.1.3, §5, §6; 7009
    token_errors    the meaning of an error response                      RFC 6749 §5.2
    refresh_failure when to retry a refresh, and when the session is over
    token_refusal   when to refresh again if the server refuses new tokens
    host_names      host names in one form, for comparison

`hermes_mcp_auth_remote.flows` combines these steps.
"""
