"""A receiver of webhooks that shares no code with ours: the signature is verified by the official
library of Standard Webhooks, the body is read by the one of CloudEvents.

    webhook.py < {"secret": …, "headers": {…}, "body": …}

Prints what the event says as JSON; exits with 1 where the signature does not hold.
"""

import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

received = json.load(sys.stdin)
headers, body = received["headers"], received["body"]
try:
    Webhook(received["secret"]).verify(body, headers)
except WebhookVerificationError as error:
    print(json.dumps({"refused": str(error)}))
    raise SystemExit(1) from None
event = from_structured_event(HTTPMessage(headers=headers, body=body.encode()), JSONFormat())
print(
    json.dumps(
        {
            "id": event.get_id(),
            "type": event.get_type(),
            "source": event.get_source(),
            "subject": event.get_subject(),
            "sequence": event.get_extension("sequence"),
            "data": event.get_data(),
        }
    )
)
