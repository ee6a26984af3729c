// Reads what Semilla signs and seals with the JOSE library jose and the HPKE library @hpke/core.
//
//     verify.mjs FILE
//
// FILE is core/tests/vectors/messages.json. Prints, for each kind of message, the claims that the
// signature covers, and the seed that the delivery carries.

import { readFile } from "node:fs/promises";
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { Aes256Gcm, CipherSuite, DhkemP256HkdfSha256, HkdfSha256 } from "@hpke/core";
import { compactVerify, EmbeddedJWK } from "jose";

const vectors = JSON.parse(await readFile(process.argv[2], "utf8"));
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64url"));
const sha256 = (text) => createHash("sha256").update(text).digest("base64url");

const key = (name) =>
  createPublicKey(
    createPrivateKey({ key: Buffer.from(vectors.keys[name], "base64url"), format: "der", type: "pkcs8" }),
  );
const [server, phone, newPhone] = ["server_pkcs8", "phone_pkcs8", "new_phone_pkcs8"].map(key);
const signers = {
  "approval-request+jwt": server,
  "seed-delivery+jwt": server,
  "bind+jwt": EmbeddedJWK,
  "dpop+jwt": EmbeddedJWK,
  "key-proof+jwt": newPhone,
};

const messages = {};
for (const [name, text] of Object.entries(vectors.messages)) {
  const [typ] = name.split(" ");
  const { payload, protectedHeader } = await compactVerify(text, signers[typ] ?? phone, {
    algorithms: ["ES256"],
  });
  if (protectedHeader.typ !== typ) throw new Error(`${typ} says that it is ${protectedHeader.typ}`);
  messages[name] = JSON.parse(Buffer.from(payload).toString("utf8"));
}

const delivery = messages["seed-delivery+jwt"];
const suite = new CipherSuite({
  kem: new DhkemP256HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});
const recipientKey = await suite.kem.deserializePrivateKey(bytes(vectors.keys.seed_kem).buffer);
const aad = [
  vectors.issuer,
  vectors.device,
  delivery.sub,
  delivery.generation,
  sha256(vectors.messages["enroll+jwt"]),
].join("|");
const seed = await suite.open(
  { recipientKey, enc: bytes(delivery.hpke.enc), info: new TextEncoder().encode("semilla/seed/v1") },
  bytes(delivery.hpke.ct),
  new TextEncoder().encode(aad),
);

console.log(JSON.stringify({ messages, seed: JSON.parse(new TextDecoder().decode(seed)) }));
