"""An endpoint that answers every prompt of this project, each prompt always the same way."""

import json
import math
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Self

from misbehaving_endpoint import Endpoint, HttpAnswer, completion, prompt_of

CHOICES = ("Yes", "No", "A", "B", "0", "1", "2")
RATINGS = ("0", "1", "2")


class AnsweringEndpoint(Endpoint):
    """Answers as the schema asks, or with the choices' probabilities.

    A prompt for which `fails(prompt)` gets HTTP 500.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fails: Callable[[str], bool] = lambda prompt: False
        self.answer = self._answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take_requests(self) -> list[str]:
        """What came since the last time, as text."""
        taken = [str(body["messages"]) for body in self.requests]
        self.requests.clear()
        return taken

    def _answer(self, body: dict[str, Any], n_before: int) -> HttpAnswer:
        if self.fails(str(body["messages"])):
            return HttpAnswer(500, {"error": {"message": "out of order"}})
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        if schema is not None:
            return HttpAnswer(body=completion(json.dumps(_value(schema, prompt_of(body)))))
        reply = completion("Yes")
        shown = {one["content"] for one in body["messages"] if one["role"] == "assistant"}
        # Where examples are rated, a digit is answered; else too little falls on the ratings.
        choices = RATINGS if shown and shown <= set(RATINGS) else CHOICES
        shares = [1 + _number(prompt_of(body) + choice) % 9 for choice in choices]
        reply["choices"][0]["logprobs"]["content"] = [
            {
                "token": "Yes",
                "logprob": -0.5,
                "bytes": None,
                "top_logprobs": [
                    {"token": choice, "logprob": math.log(share / sum(shares)), "bytes": None}
                    for choice, share in zip(choices, shares, strict=True)
                ],
            }
        ]
        return HttpAnswer(body=reply)


def _number(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:8], 16)


def _value(schema: dict[str, Any], seed: str) -> Any:
    """A value that fits a schema, following from the prompt."""
    number = _number(seed)
    if "enum" in schema:
        return schema["enum"][number % len(schema["enum"])]
    match schema["type"]:
        case "object":
            return {name: _value(one, seed + name) for name, one in schema["properties"].items()}
        case "array":
            n_items = schema.get("minItems", schema.get("maxItems", 2))
            return [_value(schema["items"], f"{seed}{n}") for n in range(n_items)]
        case "integer" | "number":
            low, high = schema.get("minimum", 0), schema.get("maximum", 2)
            return low + number % (high - low + 1)
        case "boolean":
            return bool(number % 2)
        case _:
            return f"Word {number % 100} and word {number % 89}."
