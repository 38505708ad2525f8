"""Where the running daemon says which version it is."""

from __future__ import annotations

import platform
from pathlib import Path

from daemon import Daemon

from sidecar import __version__

POLICY = "version: 1\nlocations: [{name: site, allow: public}]\n"


def test_the_running_version_is_in_metrics_log_and_page(tmp_path: Path) -> None:
    """An administrator sees what runs, not what is installed."""
    with Daemon(tmp_path, POLICY) as daemon:
        labels = f'python="{platform.python_version()}",version="{__version__}"'
        lines = daemon.get("/metrics")[1].splitlines()
        (line,) = [each for each in lines if each.startswith("mtls_sidecar_build_info{")]
        assert sorted(line.split("{")[1].split("}")[0].split(",")) == labels.split(",")
        assert line.endswith(" 1.0")
        assert f"<dd>{__version__}, Python " in daemon.get("/")[1]
        assert f"mtls-sidecar {__version__} serving " in daemon.log.read_text()
