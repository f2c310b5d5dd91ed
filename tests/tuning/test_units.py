"""The files in deployments/ for several Ollama servers with one model folder."""

from __future__ import annotations

from pathlib import Path

import yaml

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
UNIT = (DEPLOYMENTS / "ollama@.service").read_text()


def test_the_unit_takes_its_port_from_its_name_and_shares_the_models():
    lines = UNIT.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    assert "Environment=OLLAMA_HOST=127.0.0.1:%i" in lines
    assert "Environment=OLLAMA_MODELS=/usr/share/ollama/.ollama/models" in lines
    assert "ExecStart=/usr/local/bin/ollama serve" in lines
    assert all("=" in line or line.startswith(("#", "[")) or not line for line in lines)


def test_the_compose_file_gives_each_server_a_port_and_all_servers_one_volume():
    compose = yaml.safe_load((DEPLOYMENTS / "ollama.compose.yaml").read_text())
    servers = [one for name, one in compose["services"].items() if name.startswith("ollama-")]
    assert [one["ports"] for one in servers] == [[f"127.0.0.1:{11434 + n}:11434"] for n in range(len(servers))]
    assert {tuple(one["volumes"]) for one in servers} == {("models:/root/.ollama",)}
    assert set(compose["volumes"]) == {"models"}
