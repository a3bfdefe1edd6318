"""Tests in a browser. A package, so that its fixtures of package scope end with it and not with the session."""
