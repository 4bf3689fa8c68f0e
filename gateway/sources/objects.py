"""A directory of Kubernetes objects as YAML -> a configuration, without a cluster: what `--objects DIR` reads.

The objects fill the same store that a watched API server would, and are translated as they would be there. A configuration file may
stand beside them, and ConfigMaps among them may hold more of its language; all of it is joined into one `Loaded`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from gateway.model.config import Config, Kubernetes
from gateway.model.listener import bind_address
from gateway.model.problem import Finding, Problem, key_text
from gateway.model.problem import Path as KeyPath
from gateway.sources import files
from gateway.sources.certificates import Files, Look, Place, Secured, file_mark, secure
from gateway.sources.document import Document, SyntaxFlaw, parse
from gateway.sources.files import Loaded
from gateway.sources.kubernetes.kinds import KINDS, Kind, kind_of
from gateway.sources.kubernetes.memo import Memo
from gateway.sources.kubernetes.meta import Ref
from gateway.sources.kubernetes.options import Options
from gateway.sources.kubernetes.store import Store, decode_value
from gateway.sources.kubernetes.translate import Translation, config_texts, translate
from gateway.sources.kubernetes.whereabouts import NOWHERE, Whereabouts

ROOT = Path("kubernetes:")
"""What the names of files that are Secrets or ConfigMaps begin with, so that no file of the machine is meant."""
OUR_GROUPS = frozenset(kind.group for kind in KINDS.values() if "." in kind.group)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object stands."""

    document: Document
    path: KeyPath

    def text(self, path: KeyPath = ()) -> str:
        """file:line of a value of the object."""
        line, _ = self.document.place((*self.path, *path))
        return f"{self.document.source}:{line}" if line else self.document.source


@dataclass(slots=True)
class Objects:
    """What a directory holds."""

    store: Store = field(default_factory=Store)
    origins: dict[Ref, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    crd_flaw: str = ""
    """What is wrong with the CRDs of whoever has the objects."""
    whereabouts: Whereabouts = NOWHERE


@dataclass(frozen=True, slots=True)
class Joined:
    """A configuration of files and objects."""

    loaded: Loaded
    translation: Translation | None
    """None when the files cannot be used."""
    objects: Objects
    options: Options | None = None
    """Of the translation."""

    def where(self, route: str, rule: int | None = None) -> str:
        """file:line of the object behind a route, or of one of its rules; "" when there is none."""
        origin = self.translation.origins.get(route) if self.translation else None
        place = self.objects.origins.get(origin.ref) if origin else None
        if origin is None or place is None:
            return ""
        return place.text(origin.rules[rule]) if rule is not None and rule < len(origin.rules) else place.text()


def read_objects(directory: Path, namespaces: tuple[str, ...] = ()) -> Objects:
    """Every object of a kind that is read, in a file or a directory's *.yaml, *.yml and *.json. namespaces: none means all.

    Objects of other kinds are skipped in silence: a directory of manifests has many. Never raises for what stands there.
    """
    found = Objects()
    try:
        names = files.config_files(directory) if directory.is_dir() else [(directory, directory)]
    except OSError as error:
        found.problems.append(_fatal(directory, f"cannot be read: {error.strerror or error}"))
        return found
    if not names:
        found.problems.append(_fatal(directory, "no objects in this directory: no *.yaml, *.yml, *.json"))
    for shown, real in names:
        try:
            content = real.read_bytes()
            documents = parse(content.decode("utf-8-sig"), str(shown), is_json=shown.suffix.lower() == ".json")
        except OSError as error:
            found.problems.append(_fatal(shown, f"cannot be read: {error.strerror or error}"))
            continue
        except UnicodeDecodeError:
            found.problems.append(_fatal(shown, "is not UTF-8 text"))
            continue
        except SyntaxFlaw as refusal:
            found.problems.append(_fatal(shown, refusal.flaw.message, refusal.flaw.line, refusal.flaw.column))
            continue
        found.files.append(shown)
        for document in documents:
            for flaw in document.flaws:
                found.problems.append(
                    Problem(
                        severity="error", source=document.source, line=flaw.line, column=flaw.column,
                        key=key_text(flaw.path), message=flaw.message,
                    )
                )  # fmt: skip
            for path, value in _items(document.value):
                _add(found, document, path, value, namespaces)
    return found


def _fatal(path: Path, message: str, line: int = 0, column: int = 0) -> Problem:
    return Problem(severity="error", fatal=True, source=str(path), line=line, column=column, message=message)


def _items(value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """The objects of a document: itself, or those of a List."""
    if value is None:
        return
    if isinstance(value, dict) and isinstance(value.get("items"), list) and str(value.get("kind", "")).endswith("List"):
        for number, item in enumerate(value["items"]):
            yield ("items", number), item
    else:
        yield (), value


def _add(found: Objects, document: Document, path: KeyPath, value: Any, namespaces: tuple[str, ...]) -> None:
    def say(message: str, at: KeyPath = (), *, is_error: bool = True) -> None:
        line, column = document.place((*path, *at))
        severity: Any = "error" if is_error else "warning"
        found.problems.append(
            Problem(
                severity=severity, source=document.source, line=line, column=column, key=key_text((*path, *at)), message=message
            )
        )

    if not isinstance(value, dict) or not isinstance(value.get("kind"), str) or not isinstance(value.get("apiVersion"), str):
        say("is no Kubernetes object: it needs apiVersion and kind")
        return
    api_version, name = value["apiVersion"], value["kind"]
    kind = kind_of(api_version, name)
    if kind is None:
        if api_version.rpartition("/")[0] in OUR_GROUPS and name in KINDS:
            say(f"{name} of {api_version} is not read here; {KINDS[name].versions[0]} is", ("apiVersion",), is_error=False)
        return
    decoded = decode_value(kind, _with_namespace(kind, value))
    if not decoded.metadata.name:
        say("needs metadata with a name")
        return
    if kind.is_namespaced and namespaces and decoded.metadata.namespace not in namespaces:
        return
    ref = Ref(kind.name, decoded.metadata.namespace, decoded.metadata.name)
    if ref in found.origins:
        say(f"{ref.text()} stands twice; first at {found.origins[ref].text()}")
        return
    found.store.put(kind, decoded)
    found.origins[ref] = Origin(document, path)


def _with_namespace(kind: Kind, value: dict[str, Any]) -> dict[str, Any]:
    """As kubectl would send it: in the namespace `default` when it names none."""
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or (metadata.get("namespace") and kind.is_namespaced):
        return value
    return {**value, "metadata": {**metadata, "namespace": "default" if kind.is_namespaced else ""}}


def load(
    config: Path | None,
    objects: Path | None,
    known: Files | None = None,
    *,
    with_certificates: bool = True,
    found: Objects | None = None,
    memo: Memo | None = None,
) -> Joined:
    """Files and objects as one configuration. Never raises for what stands in them or is missing.

    found: the objects, of whoever has them from somewhere else than a directory. memo: of the loads before, if there is one.
    """
    known = known or Files()
    base = files.load(config, known, with_certificates=with_certificates)
    kubernetes = base.config.kubernetes if base.config is not None else Kubernetes()
    if found is None:
        found = read_objects(objects, kubernetes.namespaces) if objects is not None else Objects()
    if base.config is None or any(problem.fatal for problem in found.problems):
        problems = sorted([*base.problems, *found.problems], key=Problem.order)
        marks = {**base.tls_files.marks, **_marks(objects, found)}
        broken = Loaded(None, problems, [*base.files, *found.files], "", tls_files=Files(marks, base.tls_files.good))
        return Joined(broken, None, found)
    problems = [*found.problems]
    texts = {f"{ref.text()} {key}": text.encode() for ref, key, text in config_texts(found.store, Options.of(kubernetes))}
    if texts:
        base, refused = _with_texts(config, texts, known, base, with_certificates)
        problems += refused
    assert base.config is not None
    options = Options.of(
        base.config.kubernetes,
        taken=_taken(base.config),
        store=found.store,
        crd_flaw=found.crd_flaw,
        whereabouts=found.whereabouts,
    )
    translation = translate(found.store, options, memo)
    problems += _located(translation, found)
    look = Look(Secured(), known)
    joined = translation.add_to(base.config)
    if with_certificates:
        look = _secure(translation, known)
        problems += _told(look, translation)
        joined = msgspec.structs.replace(
            joined,
            listeners=tuple(each for each in joined.listeners if ("listeners", each.name) not in look.left_out),
            clusters=tuple(each for each in joined.clusters if ("clusters", each.name) not in look.left_out),
        )
    secured = Secured(
        listeners=base.secured.listeners | look.secured.listeners,
        clusters=base.secured.clusters | look.secured.clusters,
        bundles=base.secured.bundles | look.secured.bundles,
        facts=(*base.secured.facts, *look.secured.facts),
    )
    loaded = Loaded(
        config=joined,
        problems=sorted([*base.problems, *problems], key=Problem.order),
        files=[*base.files, *found.files],
        digest="",
        left_out=base.left_out,
        secured=secured,
        tls_files=Files({**base.tls_files.marks, **_marks(objects, found)}, base.tls_files.good | look.files.good),
        due=_earlier(base.due, look.due),
    )
    return Joined(loaded, translation, found, options)


def _with_texts(
    config: Path | None, texts: dict[str, bytes], known: Files, base: Loaded, with_certificates: bool
) -> tuple[Loaded, list[Problem]]:
    """The files together with ConfigMaps. One that would make everything useless is left out alone."""
    whole = files.load(config, known, with_certificates=with_certificates, more=texts)
    if whole.config is not None:
        return whole, []
    kept: dict[str, bytes] = {}
    refused: list[Problem] = []
    for name, text in texts.items():
        tried = files.load(config, known, with_certificates=with_certificates, more={**kept, name: text})
        if tried.config is not None:
            kept[name], base = text, tried
        else:
            refused += [msgspec.structs.replace(each, fatal=False) for each in tried.problems if each.fatal]
    return base, refused


def _taken(config: Config) -> Mapping[int, str]:
    return {bind_address(each)[1]: f"listener '{each.name}' of the files" for each in config.listeners}


def _located(translation: Translation, found: Objects) -> Iterator[Problem]:
    """The problems of the translation, with the file and the line of the value."""
    for ref, path, problem in translation.places:
        origin = found.origins.get(ref)
        key = f"{ref.text()}: {problem.key}" if problem.key else ref.text()
        if origin is None:
            yield problem
            continue
        line, column = origin.document.place((*origin.path, *path))
        yield msgspec.structs.replace(problem, source=origin.document.source, line=line, column=column, key=key)


def _secure(translation: Translation, known: Files) -> Look:
    only = Config(listeners=translation.listeners, clusters=translation.clusters)
    places = {("listeners", each.name): Place(number, ROOT) for number, each in enumerate(only.listeners)}
    places |= {("clusters", each.name): Place(number, ROOT) for number, each in enumerate(only.clusters)}
    return secure(only, places, known, given={ROOT / name: content for name, content in translation.pems.items()})


def _told(look: Look, translation: Translation) -> Iterator[Problem]:
    for finding in look.findings:
        yield Problem(severity=finding.severity, source=_owner(finding, translation), message=finding.message)


def _owner(finding: Finding, translation: Translation) -> str:
    """Name of the listener or cluster that a finding is about."""
    key, number = finding.path[:2]
    return (translation.listeners if key == "listeners" else translation.clusters)[int(number)].name


def _marks(objects: Path | None, found: Objects) -> dict[Path, tuple[str, ...]]:
    """The state of what was read, for whoever watches: the directory too, in which files come and go."""
    if objects is None:
        return {}
    names = [objects, *found.files]
    if objects.is_dir():
        names.append(objects / "..data")
    return {name: file_mark(name) for name in names}


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((each for each in (one, other) if each is not None), default=None)
