"""A local server that answers as the Hugging Face hub does, and the settings that lead the hub's client to it."""

import json
import re

from http_server import Server, hub_headers
from huggingface_hub import constants

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin")  # in large-file storage, which states a SHA-256


class Hub(Server):
    """A hub with the repositories that were added."""

    def __init__(self):
        super().__init__()
        self.revisions = {}  # repository → its branches, tags and commits
        self.gated = set()  # repositories whose files need a login

    def add(self, repository, files, *, revision="main", commit=COMMIT):
        """Serve ``files`` (name → bytes) as a revision of a repository."""
        listed = [_listed(name, content) for name, content in files.items()]
        card = json.dumps({"id": repository, "modelId": repository, "sha": commit, "siblings": listed}).encode()
        for known in (revision, commit):
            self.revisions.setdefault(repository, set()).add(known)
            self._serve(f"/api/models/{repository}/revision/{known}", card, "application/json")
            for name, content in files.items():
                path = f"/{repository}/resolve/{known}/{name}"
                self._serve(path, content, "application/octet-stream")
                self.headers[path] = hub_headers(content, large=name.endswith(LARGE)) | {"X-Repo-Commit": commit}
        if revision == "main":
            self._serve(f"/api/models/{repository}", card, "application/json")

    def add_folder(self, repository, folder, **more):
        """Serve a folder's files, and return their names and contents."""
        files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
        self.add(repository, files, **more)
        return files

    def replace(self, repository, name, content):
        """Serve other bytes for a file than those that the list of files is about."""
        for known in self.revisions[repository]:
            self.files[f"/{repository}/resolve/{known}/{name}"] = content

    def fetched(self, repository):
        """Return the names of the files of a repository that were got, in order."""
        found = (
            re.fullmatch(rf"/{repository}/resolve/[^/]+/(.+)", path) for how, path, _ in self.requests if how == "GET"
        )
        return [match[1] for match in found if match]

    def _serve(self, path, content, kind):
        self.files[path], self.types[path] = content, kind

    def _refusal(self, path):
        found = re.fullmatch(r"/(?:api/models/)?([^/]+/[^/]+?)(?:/(?:revision|resolve)/([^/]+)(?:/(.+))?)?", path)
        if found is None:  # a data set's file
            return super()._refusal(path)
        repository, revision, name = found.groups()
        if repository not in self.revisions:
            return 401, {"X-Error-Code": "RepoNotFound"}
        if name and repository in self.gated:
            return 401, {"X-Error-Code": "GatedRepo"}
        if revision and revision not in self.revisions[repository]:
            return 404, {"X-Error-Code": "RevisionNotFound"}
        if path not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
        return None


def _listed(name, content):
    """Return a file as the hub lists it."""
    entry = {"rfilename": name, "size": len(content), "blobId": "b" * 40}
    if name.endswith(LARGE):
        sha256 = hub_headers(content, large=True)["ETag"].strip('"')
        entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
    return entry


def point_hub_at(monkeypatch, url, cache):
    """Do what environment variables do that the package reads only when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
