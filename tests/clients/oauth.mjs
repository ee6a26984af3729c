// A program that proves itself by a key, with oauth4webapi: an OAuth client that shares nothing
// with ours.
//
//     node oauth.mjs ISSUER new                      a key: prints {"private": JWK, "public": JWK}
//     node oauth.mjs ISSUER CLIENT_ID PRIVATE_JWK    uses it: prints what each way of asking came to

import * as oauth from "oauth4webapi";

const [issuer, clientId, jwk] = process.argv.slice(2);
const algorithm = { name: "ECDSA", namedCurve: "P-256" };

if (clientId === "new") {
  const pair = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const [secret, open] = await Promise.all(
    [pair.privateKey, pair.publicKey].map((key) => crypto.subtle.exportKey("jwk", key)),
  );
  const { kty, crv, x, y } = open;
  console.log(JSON.stringify({ private: secret, public: { kty, crv, x, y } }));
  process.exit(0);
}

const insecure = { [oauth.allowInsecureRequests]: true };
const key = await crypto.subtle.importKey("jwk", JSON.parse(jwk), algorithm, false, ["sign"]);
const server = await oauth.processDiscoveryResponse(
  new URL(issuer),
  await oauth.discoveryRequest(new URL(issuer), { ...insecure, algorithm: "oauth2" }),
);
const client = { client_id: clientId };

// Asks for a token; where the server wants its nonce in the proof, once more.
async function token(auth, DPoP) {
  const ask = async () => {
    const response = await oauth.clientCredentialsGrantRequest(
      server, client, auth, new URLSearchParams({ scope: "tokens:read" }), { ...insecure, DPoP },
    );
    return oauth.processClientCredentialsResponse(server, client, response);
  };
  try {
    return await ask();
  } catch (error) {
    if (oauth.isDPoPNonceError(error)) return await ask();
    throw error;
  }
}

async function list(accessToken, DPoP) {
  const ask = () => oauth.protectedResourceRequest(
    accessToken, "GET", new URL("/api/v1/tokens?limit=1", issuer), new Headers(), null, { ...insecure, DPoP },
  );
  const status = (error) => error.response?.status ?? String(error);
  try {
    return (await ask()).status;
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) return status(error);
    return ask().then((response) => response.status, status);
  }
}

async function attempt(auth) {
  try {
    return (await token(auth)).token_type;
  } catch (error) {
    // A 401 comes with a challenge, which the library shows before the error beside it.
    return error.error ?? (await error.response.json()).error;
  }
}

const auth = oauth.PrivateKeyJwt(key);
const dpop = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
const other = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
const stranger = oauth.PrivateKeyJwt((await oauth.generateKeyPair("ES256")).privateKey);
const late = oauth.PrivateKeyJwt(key, {
  [oauth.modifyAssertion]: (header, claims) => { claims.exp = claims.iat + 301; },
});
const elsewhere = oauth.PrivateKeyJwt(key, {
  [oauth.modifyAssertion]: (header, claims) => { claims.aud = "https://other.example"; },
});

const bearer = await token(auth);
const bound = await token(auth, dpop);
console.log(JSON.stringify({
  bearer: bearer.token_type,
  listed: await list(bearer.access_token),
  bound: bound.token_type,
  "listed with proof": await list(bound.access_token, dpop),
  stolen: await list(bound.access_token),
  "stolen with another proof": await list(bound.access_token, other),
  stranger: await attempt(stranger),
  late: await attempt(late),
  elsewhere: await attempt(elsewhere),
}));
