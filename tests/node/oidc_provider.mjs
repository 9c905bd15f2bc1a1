// The certified oidc-provider on a free loopback port, for tests/parts/oidc_provider.py.
//
// Options come as one JSON line on stdin; one JSON line on stdout says that it listens; it ends when stdin
// closes, so that it never outlives the test, however the test ended. Each further line on stdin makes it forget
// the registered clients; a line on stdout says that it has.
import { readFileSync } from 'node:fs';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttps } from 'node:https';
import { createInterface } from 'node:readline';

import { Provider, errors } from 'oidc-provider';

// stdout carries the one line that Python waits for; the provider's notices go to the log.
console.info = console.error;

const lines = createInterface({ input: process.stdin });
lines.once('close', () => process.exit(0));
const options = JSON.parse(await new Promise((resolve) => { lines.once('line', resolve); }));

const server = options.certFile === null
  ? createHttp()
  : createHttps({ cert: readFileSync(options.certFile), key: readFileSync(options.keyFile) });
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const scheme = options.certFile === null ? 'http' : 'https';
const issuer = `${scheme}://${options.host}:${server.address().port}`;

const on = (name, more = {}) => ({ enabled: options.features.includes(name), ...more });
const features = {
  devInteractions: { enabled: true },
  userinfo: { enabled: true },
  introspection: { enabled: true },
  registration: on('registration'),
  revocation: on('revocation'),
  deviceFlow: on('deviceFlow'),
  dPoP: on('dPoP'),
  pushedAuthorizationRequests: on('pushedAuthorizationRequests', {
    requirePushedAuthorizationRequests: options.requirePushedAuthorizationRequests,
  }),
  resourceIndicators: on('resourceIndicators', {
    getResourceServerInfo(ctx, resource) {
      if (options.resources !== null && !options.resources.includes(resource)) {
        throw new errors.InvalidTarget();
      }
      return {
        scope: options.scopes.join(' '),
        audience: resource,
        accessTokenFormat: options.accessTokenFormat,
        accessTokenTTL: options.accessTokenSeconds,
      };
    },
    // The token request may leave the resource out where the authorization request named one.
    useGrantedResource: () => true,
  }),
};

const provider = new Provider(issuer, {
  features,
  scopes: ['openid', 'offline_access', ...options.scopes],
  clients: [{
    client_id: options.introspector.clientId,
    client_secret: options.introspector.clientSecret,
    redirect_uris: [],
    grant_types: [],
    response_types: [],
  }, ...options.clients],
  clientDefaults: { grant_types: ['authorization_code', 'refresh_token'] },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  pkce: { required: () => true },
  rotateRefreshToken: options.rotateRefreshToken,
  issueRefreshToken: (ctx, client, source) => client.grantTypeAllowed('refresh_token')
    && (options.refreshTokenWithoutOfflineAccess || source.scopes.has('offline_access')),
  ttl: {
    AccessToken: options.accessTokenSeconds,
    DeviceCode: options.deviceCodeSeconds,
    RefreshToken: options.refreshTokenSeconds,
  },
  cookies: { keys: ['of-one-test-only'] },
});

for (const event of [
  'authorization.error', 'device_authorization.error', 'discovery.error', 'grant.error',
  'introspection.error', 'pushed_authorization_request.error', 'registration_create.error',
  'revocation.error', 'server_error',
]) {
  provider.on(event, (ctx, error) => {
    console.error(event, error.error ?? error.stack, error.error_description ?? '', error.error_detail ?? '');
  });
}

const registeredIds = [];
provider.on('registration_create.success', (ctx, client) => registeredIds.push(client.clientId));
lines.on('line', async () => {
  await Promise.all(registeredIds.splice(0).map((id) => provider.Client.adapter.destroy(id)));
  console.log('forgotten');
});

const answer = provider.callback();
server.on('request', (request, response) => {
  const path = request.url.split('?')[0];
  response.once('finish', () => console.error(request.method, path, response.statusCode));
  if (options.absent.includes(path)) {
    response.writeHead(404).end();
    return;
  }
  answer(request, response);
});
console.log(JSON.stringify({ issuer, port: server.address().port }));
