"""A whole phone that shares no code with ours.

It binds, enrolls, shows codes and answers requests with the JOSE library joserfc, the HPKE library
pyhpke and the one-time passwords of pyotp, from nothing but the protocol's description. Its state
is one file of JSON, in clear: this is a test's phone, nobody's.

    phone.py STATE bind 'semilla://enroll?server=…&code=…'
    phone.py STATE enroll                    every token that waits for this phone
    phone.py STATE code SERIAL
    phone.py STATE inbox
    phone.py STATE approve OPERATION [NUMBER]
    phone.py STATE deny OPERATION REASON

Each prints one JSON object. Where the server refuses, it is the problem document, with exit code 1.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import sys
import urllib.parse
from email.utils import parsedate_to_datetime

import pyotp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jws
from joserfc.jwk import ECKey, KeySet
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

ES256 = ["ES256"]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def sha256(text):
    return b64(hashlib.sha256(text.encode()).digest())


def random_name():
    return b64(os.urandom(16))


class Refused(Exception):
    """A problem document."""


class Phone:
    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.state = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.nonce = None
        self.server_time = None

    def save(self):
        self.path.write_text(json.dumps(self.state))

    # Keys and messages.

    def key(self):
        return ECKey.import_key(self.state["key"])

    def public(self):
        return {name: self.state["key"][name] for name in ("kty", "crv", "x", "y")}

    def sign(self, typ, claims, header):
        protected = {"typ": typ, "alg": "ES256", **header}
        return jws.serialize_compact(protected, json.dumps(claims), self.key(), algorithms=ES256)

    def message(self, typ, claims):
        """A message of this phone: what all have in common, and `claims`."""
        self.state["counter"] += 1
        self.save()
        common = {
            "v": 1,
            "iss": self.state["device"],
            "aud": self.state["issuer"],
            "jti": random_name(),
            "iat": self.now(),
            "ctr": self.state["counter"],
        }
        return self.sign(typ, {**common, **claims}, {"kid": self.key().thumbprint()})

    def verified(self, text, typ):
        """A message of the server, by the keys pinned when the phone was bound."""
        keys = KeySet.import_key_set(json.loads(self.state["jwks"]))
        opened = jws.deserialize_compact(text, keys, algorithms=ES256)
        if opened.protected["typ"] != typ:
            raise SystemExit(f"expected {typ}, got {opened.protected['typ']}")
        claims = json.loads(opened.payload)
        if (claims["v"], claims["iss"], claims["aud"]) != (1, self.state["issuer"], self.state["device"]):
            raise SystemExit("the message is not from this server for this phone")
        return claims

    # Requests.

    def now(self):
        """Seconds by the server's clock, as its last answer told it."""
        if self.server_time is None:
            self.request("GET", "/healthz", proof=False)
        return self.server_time

    def request(self, method, path, body=None, proof=True):
        answer = self.send(method, path, body, proof)
        if answer.status == 401 and "use_dpop_nonce" in (answer.headers["WWW-Authenticate"] or ""):
            answer = self.send(method, path, body, proof)
        content = json.loads(answer.content) if answer.content[:1] == b"{" else None
        if answer.status >= 400:
            raise Refused(content)
        return content

    def send(self, method, path, body, proof):
        server = urllib.parse.urlsplit(self.state["issuer"])
        headers = {"Accept": "application/json"}
        if proof:
            token = self.state["device_token"]
            claims = {
                "jti": random_name(),
                "htm": method,
                "htu": self.state["issuer"] + path.split("?")[0],
                "iat": self.now(),
                "ath": sha256(token),
            }
            if self.nonce:
                claims["nonce"] = self.nonce
            headers["Authorization"] = f"DPoP {token}"
            headers["DPoP"] = self.sign("dpop+jwt", claims, {"jwk": self.public()})
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection = http.client.HTTPConnection(server.hostname, server.port, timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        self.nonce = answer.headers["DPoP-Nonce"] or self.nonce
        self.server_time = int(parsedate_to_datetime(answer.headers["Date"]).timestamp())
        return answer

    # What a person does.

    def bind(self, uri):
        wanted = urllib.parse.parse_qs(urllib.parse.urlsplit(uri).query)
        code = wanted["code"][0].replace("-", "")
        activation, secret = code[:4], code[4:].encode()
        key = HKDF(SHA256(), 32, None, b"semilla/activation/v1").derive(secret)

        def mac(text):
            return hmac.new(key, text.encode(), "sha256").digest()

        self.state = {"issuer": wanted["server"][0]}
        start = self.request("POST", "/device/v1/bindings/start", {"activation": activation}, False)
        nonce, issuer, jwks = start["nonce"], start["issuer"], start["jwks"]
        if not hmac.compare_digest(
            mac(f"server|{nonce}|{issuer}|{sha256(jwks)}"), unb64(start["mac"])
        ):
            raise SystemExit("the server does not know the code")
        own = ECKey.generate_key("P-256", private=True)
        self.state |= {"issuer": issuer, "jwks": jwks, "counter": 1, "tokens": {}}
        self.state["key"] = own.as_dict(private=True)
        claims = {
            "v": 1,
            "iss": own.thumbprint(),
            "aud": issuer,
            "jti": random_name(),
            "iat": self.now(),
            "ctr": 1,
            "nonce": nonce,
            "activation": activation,
            "platform": "Python",
            "name": "Teléfono ajeno",
            "jkt_mac": b64(mac(f"phone|{nonce}|{own.thumbprint()}")),
        }
        message = self.sign("bind+jwt", claims, {"jwk": self.public()})
        bound = self.request("POST", "/device/v1/bindings", {"message": message}, False)
        self.state |= {"device": bound["device"], "device_token": bound["device_token"]}
        self.save()
        return {"device": bound["device"]}

    def enroll(self):
        waiting = self.request("GET", "/device/v1/enrollments")["enrollments"]
        return {"enrolled": [self.enroll_one(one) for one in waiting]}

    def enroll_one(self, waiting):
        kem_private = ec.generate_private_key(ec.SECP256R1())
        numbers = kem_private.public_key().public_numbers()
        seed_kem = {
            "kty": "EC",
            "crv": "P-256",
            "x": b64(numbers.x.to_bytes(32, "big")),
            "y": b64(numbers.y.to_bytes(32, "big")),
        }
        asked = self.message(
            "enroll+jwt", {"enrollment": waiting["enrollment"], "seed_kem": seed_kem}
        )
        answer = self.request("POST", "/device/v1/enrollments", {"message": asked})
        delivery = self.verified(answer["message"], "seed-delivery+jwt")
        suite = CipherSuite.new(
            KEMId.DHKEM_P256_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM
        )
        recipient = suite.create_recipient_context(
            unb64(delivery["hpke"]["enc"]),
            suite.kem.deserialize_private_key(
                kem_private.private_numbers().private_value.to_bytes(32, "big")
            ),
            info=b"semilla/seed/v1",
        )
        aad = "|".join(
            [
                self.state["issuer"],
                self.state["device"],
                delivery["sub"],
                str(delivery["generation"]),
                sha256(asked),
            ]
        )
        package = json.loads(recipient.open(unb64(delivery["hpke"]["ct"]), aad.encode()))
        self.state["tokens"][package["account"]] = package
        self.save()
        confirm = f"/device/v1/enrollments/{waiting['enrollment']}/confirm"
        confirmed = self.request("POST", confirm, {"code": self.code(package["account"])["code"]})
        return {"serial": package["account"], "generation": confirmed["generation"]}

    def code(self, serial):
        package = self.state["tokens"][serial]
        digest = getattr(hashlib, package["algorithm"].lower())
        totp = pyotp.TOTP(
            package["secret_b32"],
            digits=package["digits"],
            digest=digest,
            interval=package["period"],
        )
        return {"code": totp.at(self.now())}

    def requests(self):
        asked = self.request("GET", "/device/v1/approvals")["approvals"]
        return [(one["request"], self.verified(one["request"], "approval-request+jwt")) for one in asked]

    def inbox(self):
        return {"requests": [claims for _, claims in self.requests()]}

    def answer(self, operation, decision):
        text, claims = next(pair for pair in self.requests() if pair[1]["txn"] == operation)
        display = claims["display"]
        texts = [t.encode() for t in ("semilla/display/v1", display["locale"], display["title"])]
        lines = [line.encode() for line in display["lines"]]

        def number(value):
            return value.to_bytes(4, "big")

        shown = b"".join(number(len(t)) + t for t in texts) + number(len(lines))
        shown += b"".join(number(len(line)) + line for line in lines)
        response = self.message(
            "approval-response+jwt",
            {
                "nonce": claims["nonce"],
                "txn": operation,
                "request_hash": sha256(text),
                "display_hash": b64(hashlib.sha256(shown).digest()),
                "uv": {"method": "pin"},
                **decision,
            },
        )
        path = f"/device/v1/approvals/{operation}/response"
        return self.request("POST", path, {"message": response})

    def approve(self, operation, number=None):
        typed = {} if number is None else {"match_number": number}
        return self.answer(operation, {"decision": "approved", **typed})

    def deny(self, operation, reason):
        return self.answer(operation, {"decision": "denied", "reason": reason})


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in ("bind", "enroll", "code", "inbox", "approve", "deny"):
        raise SystemExit(__doc__)
    _, path, command, *arguments = sys.argv
    try:
        print(json.dumps(getattr(Phone(path), command)(*arguments)))
    except Refused as refused:
        print(json.dumps(refused.args[0]))
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
