"""The stdio bridge: a local MCP server that passes messages between a client and a remote MCP server.

Reading order: `json_rpc` and `sse` (parsers, no I/O), `request_headers`, `session`, `stdio`, `connections`,
`transport`, `http_transport`, `legacy_transport`, `login`, `relay`.
"""
