"""What the LLM is asked: labels from words or from contexts, and whether a text fits a label.

Two styles. `words` is for LLMs of less than about a billion parameters: only the peak words and
short examples, nothing else. Tried on SmolLM2-135M-Instruct with noisy evidence from the bundled
corpus, two draws of 32 concepts: 21 and 18 labels hit the concept or its parent. Every form with
lines of context hit fewer (11 to 18), and one text instead of chat turns none. `contexts` is for
all others and follows automatic interpretability practice (delphi; the semi-NMF MLP-features
paper): marked contexts, or the tokens that a feature promotes and suppresses, with leave to answer
none. The examples' themes are not concepts of the bundled corpus: no label is handed over.
"""

from __future__ import annotations

import json

from assets.labels.prompt import Prompt

LABEL_SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


def _label(text: str) -> str:
    return json.dumps({"label": text})


_WORDS_SYSTEM = (
    "You are given words. Name the topic that most of them share. Ignore words that do not fit."
)
_WORDS_EXAMPLES = (
    ({"words": "rain, snow, wind, storm, cloudy"}, _label("weather")),
    ({"words": "Venice, gondola, canal"}, _label("Venice")),
    ({"words": "sono, della, che, il, perché, molto"}, _label("Italian language")),
    ({"words": "chair, table, sofa, desk"}, _label("furniture")),
    ({"words": "purple, lilac"}, _label("the colour purple")),
    ({"words": "guitar, piano, violin, concert"}, _label("music")),
    # A small LLM repeats the last example where it sees nothing: that must not be a theme.
    ({"words": "of, seven, lamp, went, upper"}, _label("none")),
)

WORDS_INPUT = Prompt(
    name="label_input_words",
    system=_WORDS_SYSTEM,
    template="Words: {words}",
    examples=_WORDS_EXAMPLES,
    json_schema=LABEL_SCHEMA,
    max_tokens=32,
)
WORDS_OUTPUT = Prompt(
    name="label_output_words",
    system=_WORDS_SYSTEM,
    template="Words: {words}",
    examples=_WORDS_EXAMPLES,
    json_schema=LABEL_SCHEMA,
    max_tokens=32,
)

CONTEXTS_INPUT = Prompt(
    name="label_input_contexts",
    system=(
        "You explain what a feature of a language model detects. You see texts in which it is "
        "active; the word where it is strongest stands between « and ». Name what the marked "
        "words, in their contexts, have in common: one to six words, as specific as the evidence "
        "allows, no sentence. If they have nothing in common, answer none."
    ),
    template="Texts:\n{contexts}\n\nMarked words: {words}",
    examples=(
        (
            {
                "contexts": "- The «rain» kept falling all night\n"
                "- A cold «wind» blew from the sea\n- Heavy «snow» closed the road",
                "words": "rain, wind, snow",
            },
            _label("weather"),
        ),
        (
            {
                "contexts": "- Io «sono» molto stanco oggi\n- La casa «della» nonna è grande\n"
                "- Penso «che» verrà domani",
                "words": "sono, della, che",
            },
            _label("Italian text"),
        ),
    ),
    json_schema=LABEL_SCHEMA,
    max_tokens=48,
)
CONTEXTS_OUTPUT = Prompt(
    name="label_output_contexts",
    system=(
        "You explain what a feature of a language model makes it say. You see the tokens that the "
        "feature makes more likely, strongest first, and those it makes less likely. Many may be "
        "noise. Name the theme of the tokens it makes more likely or, if only the others have "
        "one, of those: one to six words, as specific as possible, no sentence. If neither list "
        "has a theme, answer none."
    ),
    template="More likely: {promoted}\nLess likely: {suppressed}",
    examples=(
        (
            {"promoted": "rain, snow, wind, storm, umbrella", "suppressed": "senate, proof, lemma"},
            _label("weather"),
        ),
        (
            {"promoted": "uer, Gr, zip, 88, mor, fact", "suppressed": "ball, ;, under, ax, 4"},
            _label("none"),
        ),
    ),
    json_schema=LABEL_SCHEMA,
    max_tokens=48,
)

LABEL_FITS_TEXT = Prompt(
    name="label_fits_text",
    system="You say whether a text fits a label. You answer Yes or No.",
    template="Label: {label}\nText: {text}\nDoes the text fit the label?",
    examples=(
        ({"label": "weather", "text": "Heavy snow closed the mountain road."}, "Yes"),
        ({"label": "furniture", "text": "Heavy snow closed the mountain road."}, "No"),
        ({"label": "furniture", "text": "They sold the old sofa last week."}, "Yes"),
        ({"label": "music", "text": "They sold the old sofa last week."}, "No"),
    ),
    max_tokens=1,
    top_logprobs=20,
)

# Asked with a schema that allows two answers only, the label and a foil: a forced choice.
TOPIC_OF_TEXT = Prompt(
    name="topic_of_text",
    system="Name the topic of the text.",
    template="Text: {text}",
    examples=(
        ({"text": "Heavy snow closed the mountain road."}, _label("weather")),
        ({"text": "Penso che domani andremo al mare."}, _label("Italian language")),
        ({"text": "They sold the old sofa last week."}, _label("furniture")),
        ({"text": "A purple curtain hung in the hall."}, _label("the colour purple")),
        ({"text": "She plays the guitar in a small band."}, _label("music")),
    ),
    max_tokens=64,
)
# Foils for a fit in which no other feature has a label.
SPARE_FOILS = ("weather", "furniture", "music", "Italian language", "clothes", "travel", "family")

LABEL_PROMPTS = {
    ("input", "words"): WORDS_INPUT,
    ("output", "words"): WORDS_OUTPUT,
    ("input", "contexts"): CONTEXTS_INPUT,
    ("output", "contexts"): CONTEXTS_OUTPUT,
}
