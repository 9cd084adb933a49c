"""No test reads or writes the store of whoever runs it: tests that need one name it."""

import os

os.environ["TRILEMMA_STORE"] = "off"
