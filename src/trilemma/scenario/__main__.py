"""`python -m trilemma.scenario > docs/scenario.schema.json` writes the published schema anew."""

import sys

from trilemma.scenario.schema import schema_text

if __name__ == "__main__":
    sys.stdout.write(schema_text())
