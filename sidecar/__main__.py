"""`python -m sidecar`."""

from .cli import main

raise SystemExit(main())
