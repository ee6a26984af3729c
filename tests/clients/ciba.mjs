// A relying party that asks a person's phone for an approval, with openid-client: an OpenID client
// that shares nothing with ours. It keeps to its own way: it finds the server by discovery, looks
// again and again until there is an answer, and verifies the ID token.
//
//     node ciba.mjs ISSUER CLIENT_ID PRIVATE_JWK PARAMETERS
//
// PARAMETERS is a JSON object; with "signed": true they are sent as a signed request, with
// "dpop": true the tokens are bound to a key. Prints what /bc-authorize answers, a line
// {"looked": NAME} for each look that found no answer, and at last the claims or {"error": NAME}.

import * as openid from "openid-client";
import { SignJWT } from "jose";

const [issuer, clientId, jwk, given] = process.argv.slice(2);
const { signed, dpop, interval, ...parameters } = JSON.parse(given);
const algorithm = { name: "ECDSA", namedCurve: "P-256" };
const key = await crypto.subtle.importKey("jwk", JSON.parse(jwk), algorithm, false, ["sign"]);
const say = (value) => console.log(JSON.stringify(value));

const config = await openid.discovery(
  new URL(issuer), clientId, {}, openid.PrivateKeyJwt(key), { execute: [openid.allowInsecureRequests] },
);
config[openid.customFetch] = async (url, options) => {
  const response = await fetch(url, options);
  if (url.endsWith("/token") && response.status === 400) {
    const { error } = await response.clone().json();
    if (["authorization_pending", "slow_down"].includes(error)) say({ looked: error });
  }
  return response;
};

const request = () =>
  new SignJWT(parameters)
    .setProtectedHeader({ alg: "ES256", typ: "oauth-authz-req+jwt" })
    .setIssuer(clientId)
    .setAudience(config.serverMetadata().issuer)
    .setJti(crypto.randomUUID())
    .setIssuedAt()
    .setNotBefore("0s")
    .setExpirationTime("1m")
    .sign(key);

try {
  const asked = await openid.initiateBackchannelAuthentication(
    config, signed ? { request: await request() } : parameters,
  );
  say(asked);
  const DPoP = dpop
    ? openid.getDPoPHandle(config, await openid.randomDPoPKeyPair("ES256"))
    : undefined;
  const tokens = await openid.pollBackchannelAuthenticationGrant(
    config, { ...asked, interval: interval ?? asked.interval }, undefined, { DPoP },
  );
  say({ token_type: tokens.token_type, details: tokens.authorization_details, ...tokens.claims() });
} catch (error) {
  say({ error: error.error ?? String(error.cause?.message ?? error) });
}
