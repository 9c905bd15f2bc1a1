"""OAuth 2.1 for MCP clients, sans-I/O: values in, values out; no network, clock, files or randomness.

The steps of a login, in order, and where each is written down:

    wire            requests, responses, exchanges; bounded reading
    urls            which URLs are ever shown, opened or fetched          SBP "Authorization URL Validation"
    challenge       WWW-Authenticate -> Challenge                         RFC 9110 §11.6.1, 6750 §3, 9728 §5.1
    metadata        protected resource, authorization server              RFC 9728, 8414, OIDC Discovery
    client          who we are: CIMD, registration, authentication        RFC 7591, 6749 §2.3, 7523
    authorization   scope, code_challenge, resource -> authorization URL  RFC 6749 §4.1.1, 7636, 8707, 9126
    device          a code to enter on another device                     RFC 8628 §3.1, §3.2
    polling         asking until the person has decided -> Tokens         RFC 8628 §3.4, §3.5
    flows           by a code or by a device, and a change of mind
    rehearsal       a login up to where it would begin: what is in its way
    paste           what phones, chats and terminals do to an address, undone
    redirect        hostile text -> AuthorizationResponse (state, iss)    RFC 6749 §4.1.2, 9207
    jws             claims and a key -> signed JWT                        RFC 7515, 7638
    dpop            with every request a proof of the key                 RFC 9449
    token           code or refresh_token -> Tokens; revocation           RFC 6749 §4.1.3, §5, §6; 7009
    grants          tokens without a person                               RFC 6749 §4.4, 7523 §2.1, 8693
"""
