"""What schemathesis has to know of us to try the whole description: whose credentials an operation
wants. It makes requests from the document alone, right and wrong ones, and holds every answer
against it.

Set in the environment: SEMILLA_COMPANY and SEMILLA_BANK, access tokens; SEMILLA_CLIENT, an id and
a secret as `id:secret`; SEMILLA_PHONES, the states of two phones that phone.py bound, the first to
ask with, the second to be unbound.
"""

import base64
import os
import threading

import schemathesis
from phone import Phone, random_name, sha256

PHONES = [Phone(path) for path in os.environ["SEMILLA_PHONES"].split(os.pathsep)]
BASIC = base64.b64encode(os.environ["SEMILLA_CLIENT"].encode()).decode()
LOCK = threading.Lock()


def ways(case):
    """How one may prove oneself: schemes, and the scopes each wants."""
    security = case.operation.definition.raw.get("security", [])
    return {scheme: scopes for way in security for scheme, scopes in way.items()}


# Each request has a proof of its own: nothing is kept for the next one.
@schemathesis.auth(refresh_interval=None)
class Credentials:
    """The access token, or the phone's token with a proof of its key for this very request."""

    def get(self, case, context):
        return ways(case) or None

    def set(self, case, data, context):
        if "oauth" in data:
            of_bank = data["oauth"][0] in ("stock:manage", "companies:manage")
            token = os.environ["SEMILLA_BANK" if of_bank else "SEMILLA_COMPANY"]
            case.headers["Authorization"] = f"Bearer {token}"
        elif "client" in data:
            case.headers["Authorization"] = f"Basic {BASIC}"
        else:
            leaves = case.operation.path == "/device/v1/me"
            prove(case, PHONES[1 if leaves else 0])


def prove(case, phone):
    token, method = phone.state["device_token"], case.method.upper()
    with LOCK:
        nonce = phone.nonce
    claims = {
        "jti": random_name(),
        "htm": method,
        "htu": phone.state["issuer"] + case.formatted_path,
        "iat": phone.now(),
        "ath": sha256(token),
    }
    if nonce:
        claims["nonce"] = nonce
    case.headers["Authorization"] = f"DPoP {token}"
    case.headers["DPoP"] = phone.sign("dpop+jwt", claims, {"jwk": phone.public()})


@schemathesis.hook
def after_call(context, case, response):
    nonce = response.headers.get("dpop-nonce")
    if nonce:
        with LOCK:
            for phone in PHONES:
                phone.nonce = nonce[0] if isinstance(nonce, list) else nonce


@schemathesis.hook
def before_call(context, case, kwargs):
    # That a wait is waited for is another story's.
    query = case.query
    if isinstance(query, dict) and str(query.get("wait")) in map(str, range(31)):
        query["wait"] = 0
