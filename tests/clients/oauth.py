"""A program that proves itself by a key, with requests_oauth2client: an OAuth client that shares
nothing with ours.

    oauth.py ISSUER new                      a key: prints {"private": JWK, "public": JWK}
    oauth.py ISSUER CLIENT_ID PRIVATE_JWK    uses it: prints what each way of asking came to
"""

import json
import sys

import requests
from jwskate import Jwk
from requests_oauth2client import InvalidClient, OAuth2Client, PrivateKeyJwt


def main():
    issuer, client_id, *rest = sys.argv[1:]
    if client_id == "new":
        key = Jwk.generate(alg="ES256").with_kid_thumbprint()
        print(json.dumps({"private": dict(key), "public": dict(key.public_jwk())}))
        return
    key = Jwk(json.loads(rest[0]))
    discovered = requests.get(f"{issuer}/.well-known/oauth-authorization-server").json()
    client = OAuth2Client.from_discovery_document(
        discovered, issuer=issuer, testing=True, client_id=client_id, private_key=key
    )
    tokens = f"{issuer}/api/v1/tokens"
    bearer = client.client_credentials()
    bound = client.client_credentials(dpop=True, dpop_alg="ES256")

    # An assertion that is used a second time.
    class Same(PrivateKeyJwt):
        text = None

        def client_assertion(self, audience):
            Same.text = Same.text or super().client_assertion(audience)
            return Same.text

    same = OAuth2Client(
        discovered["token_endpoint"], issuer=issuer, testing=True, auth=Same(client_id, private_jwk=key)
    )
    first = same.client_credentials()
    try:
        same.client_credentials()
        again = "accepted"
    except InvalidClient as refused:
        again = f"invalid_client: {refused.description}"

    print(
        json.dumps(
            {
                "bearer": bearer.token_type,
                "listed": requests.get(tokens, auth=bearer).status_code,
                "bound": bound.token_type,
                # The library signs again with the nonce it is given.
                "listed with proof": requests.get(tokens, params={"limit": 1}, auth=bound).status_code,
                "stolen": requests.get(
                    tokens, headers={"Authorization": f"Bearer {bound.access_token}"}
                ).status_code,
                "first": first.token_type,
                "again": again,
            }
        )
    )


main()
