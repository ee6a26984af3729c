"""Key containers (RFC 6030) by python-pskc, which shares no code with ours: reads what we write,
writes what we read, and says what its own example files hold."""

import json
import sys
from binascii import a2b_hex, b2a_hex

from pskc import PSKC


def shown(key):
    try:
        secret = b2a_hex(key.secret).decode() if key.secret is not None else None
        mac = key.check()
    except Exception as error:  # whatever it cannot open
        return {"serial": key.serial, "error": str(error)}
    return {
        "serial": key.serial,
        "secret": secret,
        "mac": mac,
        "algorithm": (key.algorithm or "").rsplit(":", 1)[-1],
        "suite": key.algorithm_suite,
        "counter": key.counter,
        "interval": key.time_interval,
        "drift": key.time_drift,
        "digits": key.response_length,
        "manufacturer": key.manufacturer,
    }


def read(path, kind="clear", secret=""):
    pskc = PSKC(path)
    if kind == "passphrase":
        pskc.encryption.derive_key(secret)
    elif kind == "key":
        pskc.encryption.key = a2b_hex(secret)
    return [shown(key) for key in pskc.keys]


def write(path, kind, secret, seed):
    pskc = PSKC()
    shared = {"secret": a2b_hex(seed), "manufacturer": "Acme", "response_encoding": "DECIMAL"}
    base = "urn:ietf:params:xml:ns:keyprov:pskc:"
    pskc.add_key(id="PY-1000", serial="PY-1000", algorithm=base + "hotp", counter=7, response_length=6, **shared)
    pskc.add_key(
        id="PY-1001", serial="PY-1001", algorithm=base + "totp", algorithm_suite="HMAC-SHA256",
        time_interval=60, response_length=8, **shared)
    if kind == "passphrase":
        pskc.encryption.setup_pbkdf2(secret)
    elif kind == "passphrase-sha256":
        pskc.encryption.setup_pbkdf2(secret, iterations=1000, algorithm="aes256-cbc", prf="hmac-sha256")
    elif kind == "key":
        pskc.encryption.setup_preshared_key(key=a2b_hex(secret), algorithm="aes128-cbc")
    pskc.write(path)
    return []


print(json.dumps({"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])))
