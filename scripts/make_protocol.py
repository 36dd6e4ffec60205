"""Writes the schemas at the end of docs/serve.md from the classes of the protocol; a test says when they are stale.

python scripts/make_protocol.py
"""

import json
import re
from pathlib import Path
from typing import Any

from streamllm.live.protocol import FROM_CLIENT, schemas

PAGE = Path(__file__).parent.parent / "docs" / "serve.md"
MARK = "<!-- From here on made by `python scripts/make_protocol.py`. Do not edit. -->\n"


def page() -> str:
    """The whole page, with the schemas anew."""
    by_hand = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    parts = [by_hand + MARK]
    for title, of_client in (("From the client", True), ("From the service", False)):
        parts.append(f"### {title}\n")
        kinds = {str(kind.__struct_config__.tag) for kind in FROM_CLIENT}
        parts += [_entry(name, schema) for name, schema in schemas().items() if (name in kinds) == of_client]
    return "\n".join(parts)


def _entry(name: str, schema: dict[str, Any]) -> str:
    about = re.sub(r"``(.+?)``", r"`\1`", " ".join(schema.pop("description").split()))
    schema.pop("title")
    lines = ",\n".join(
        f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in schema.items() if key != "properties"
    )
    fields = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in schema["properties"].items())
    return f'**`{name}`** {about}\n\n```json\n{{\n{lines},\n  "properties": {{\n{fields}\n  }}\n}}\n```\n'


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
