// The MCP SDK's own servers: Streamable HTTP with sessions and resumption at /mcp, HTTP+SSE at /sse.
// Prints its origin; ends with its standard input.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { SSEServerTransport } from "@modelcontextprotocol/sdk/server/sse.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";

function newServer() {
  const server = new McpServer({ name: "node", version: "1" }, { capabilities: { logging: {} } });
  server.registerTool("ask", { description: "Asks the client for its roots." }, async (extra) => {
    await server.server.sendLoggingMessage({ level: "info", data: "asking" });
    const { roots } = await server.server.listRoots();
    return { content: [{ type: "text", text: roots.map((root) => root.uri).join() }] };
  });
  server.registerTool("big", { description: "Returns three million letters." }, async () => ({
    content: [{ type: "text", text: "x".repeat(3_000_000) }],
  }));
  return server;
}

const sessions = new Map();

async function serve(request, response) {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/sse" && request.method === "GET") {
    const transport = new SSEServerTransport("/messages", response);
    sessions.set(transport.sessionId, transport);
    await newServer().connect(transport);
  } else if (url.pathname === "/messages") {
    await sessions.get(url.searchParams.get("sessionId")).handlePostMessage(request, response);
  } else if (url.pathname === "/forget") {
    sessions.clear();
    response.end();
  } else if (url.pathname !== "/mcp") {
    response.writeHead(404).end();
  } else {
    let transport = sessions.get(request.headers["mcp-session-id"]);
    if (!transport && !request.headers["mcp-session-id"]) {
      transport = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => sessions.set(id, transport),
      });
      await newServer().connect(transport);
    }
    if (transport) await transport.handleRequest(request, response);
    else response.writeHead(404).end();
  }
}

const server = createServer((request, response) => void serve(request, response));
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.on("end", () => process.exit()).resume();
