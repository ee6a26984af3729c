"""A relying party that asks a person's phone for an approval, with requests_oauth2client: an OpenID
client that shares nothing with ours.

    ciba.py ISSUER new                                      a key, as {"private": JWK, "public": JWK}
    ciba.py ISSUER CLIENT_ID PRIVATE_JWK ask PARAMETERS     prints what /bc-authorize answers
    ciba.py ISSUER CLIENT_ID PRIVATE_JWK sign PARAMETERS    the same, as a signed request
    ciba.py ISSUER CLIENT_ID PRIVATE_JWK replay PARAMETERS  asks, and again with the same assertion
    ciba.py ISSUER CLIENT_ID PRIVATE_JWK look AUTH_REQ_ID   prints the claims of the ID token

What is refused is printed as {"error": NAME, "raised": CLASS}.
"""

import json
import sys
import time
import uuid

import requests
from jwskate import Jwk, JwkSet, SignedJwt
from requests_oauth2client import EndpointError, OAuth2Client, PrivateKeyJwt


class Same(PrivateKeyJwt):
    """Proves itself with one assertion again and again."""

    text = None

    def client_assertion(self, audience):
        Same.text = Same.text or super().client_assertion(audience)
        return Same.text


def shown(answer):
    number = answer.other.get("match_number")
    return {"auth_req_id": answer.auth_req_id, "interval": answer.interval, "match_number": number}


def main():
    issuer, client_id, *rest = sys.argv[1:]
    if client_id == "new":
        key = Jwk.generate(alg="ES256").with_kid_thumbprint()
        return {"private": dict(key), "public": dict(key.public_jwk())}
    key, command, what = Jwk(json.loads(rest[0])), rest[1], rest[2]
    discovered = requests.get(f"{issuer}/.well-known/openid-configuration").json()
    auth = (Same if command == "replay" else PrivateKeyJwt)(client_id, private_jwk=key)
    # The library takes the one endpoint from a discovery document, and not the other.
    names = ("token_endpoint", "backchannel_authentication_endpoint")
    endpoints = {name: discovered[name] for name in names}
    client = OAuth2Client(**endpoints, issuer=issuer, testing=True, auth=auth)
    if command == "look":
        tokens = client.ciba(what)
        keys = JwkSet(requests.get(discovered["jwks_uri"]).json())
        id_token = SignedJwt(str(tokens.id_token))
        assert id_token.verify_signature(keys, alg="ES256")
        assert id_token.issuer == issuer and id_token.audiences == [client_id]
        return {"token_type": tokens.token_type, **id_token.claims}
    parameters = json.loads(what)
    if command == "sign":
        now = int(time.time())
        envelope = {"iss": client_id, "aud": issuer, "jti": str(uuid.uuid4())}
        envelope |= {"iat": now, "nbf": now, "exp": now + 60}
        answer = client.backchannel_authentication_request(
            private_jwk=key, alg="ES256", **envelope, **parameters
        )
        return shown(answer)
    answer = client.backchannel_authentication_request(**parameters)
    if command == "replay":
        client.backchannel_authentication_request(**parameters)
    return shown(answer)


try:
    print(json.dumps(main()))
except EndpointError as refused:
    print(json.dumps({"error": refused.error, "raised": type(refused).__name__}))
