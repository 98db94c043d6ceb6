import hashlib
import traceback
from pathlib import Path

import pytest

from server.auth.clients import ANYONE, Authenticator, Client, certificate_names
from server.errors import PermissionDenied, StartError, Unauthenticated

OLD, NEW, OTHER = "an-old-token-of-alice", "a-new-token-of-alice", "the-token-of-the-operator"
FILE = f"""
[clients.alice]
tokens = ["{OLD}", "{NEW}"]
allow = ["infer"]
requests_per_second = 5

[clients.operator]
token_sha256 = ["{hashlib.sha256(OTHER.encode()).hexdigest()}"]
allow = ["infer", "attention", "manage"]

[clients.sensor]
certificate = "sensor.example"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three clients: by tokens, by a token's hash, by a certificate."""
    (tmp_path / "clients.toml").write_text(FILE)
    return tmp_path / "clients.toml"


def bearer(token: str) -> dict[str, str | bytes]:
    """A call's metadata."""
    return {"authorization": f"Bearer {token}"}


def test_every_token_of_a_client_is_the_clients(file: Path) -> None:
    """So that one can be replaced while the other is in use; of the operator's only the hash is known."""
    authenticator = Authenticator(file, manage=True)
    assert [authenticator.identify(bearer(token)).name for token in (OLD, NEW, OTHER)] == ["alice", "alice", "operator"]
    assert authenticator.identify({}, ["other.example", "sensor.example"]).name == "sensor"


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        bearer(""),
        bearer(OLD[:-1]),
        bearer(OLD + "x"),
        bearer(hashlib.sha256(OTHER.encode()).hexdigest()),
        {"authorization": f"Basic {OLD}"},
        {"authorization": OLD},
        {"x-token": OLD},
    ],
)
def test_whoever_is_not_known_is_turned_away(metadata: dict[str, str | bytes], file: Path) -> None:
    """And is not told what would have fitted."""
    with pytest.raises(Unauthenticated) as refused:
        Authenticator(file, manage=True).identify(metadata, ["unknown.example"])
    assert not any(token in str(refused.value) for token in (OLD, NEW, OTHER))


def test_each_may_do_what_the_file_says(file: Path) -> None:
    """Alice asks, the sensor asks for attention too, the operator manages, where management is offered."""
    authenticator = Authenticator(file, manage=True)
    alice, operator = authenticator.identify(bearer(OLD)), authenticator.identify(bearer(OTHER))
    sensor = authenticator.identify({}, ["sensor.example"])
    for client in (alice, operator, sensor):
        authenticator.check(client, "Predict")
    sensor.require("attention", "attention")
    with pytest.raises(PermissionDenied, match="attention: alice may not; expected a client with 'attention'"):
        alice.require("attention", "attention")
    authenticator.check(operator, "LoadModel")
    with pytest.raises(PermissionDenied, match="LoadModel: alice may not; expected a client with 'manage'"):
        authenticator.check(alice, "LoadModel")
    with pytest.raises(PermissionDenied, match="RepositoryModelLoad: management is off on this address"):
        Authenticator(file, manage=False).check(operator, "RepositoryModelLoad")


def test_who_may_not_infer_is_refused_every_method_that_computes_or_describes() -> None:
    """A client that only manages."""
    authenticator = Authenticator(None, manage=True)
    for method in ("Predict", "ModelInfer", "GetModel", "ModelStatistics"):
        with pytest.raises(PermissionDenied, match=f"{method}: keeper may not; expected a client with 'infer'"):
            authenticator.check(Client("keeper", ("manage",)), method)
    authenticator.check(Client("keeper", ("manage",)), "LoadModel")


def test_without_a_file_anyone_may_do_everything_that_is_offered() -> None:
    """A server on one's own machine."""
    authenticator = Authenticator(None, manage=True)
    assert authenticator.identify({}) is ANYONE
    authenticator.check(ANYONE, "SystemSharedMemoryRegister")
    with pytest.raises(PermissionDenied, match="management is off"):
        Authenticator(None, manage=False).check(ANYONE, "SystemSharedMemoryRegister")


def replace(file: Path, content: str) -> None:
    """Put another file in its place, as editors and Kubernetes do."""
    other = file.with_suffix(".new")
    other.write_text(content)
    other.replace(file)


def test_a_changed_file_is_taken_and_one_that_is_damaged_is_not(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A token that was taken out ends at once; what is left of a quota stays; secrets are not logged."""
    authenticator = Authenticator(file, manage=True)
    quota = authenticator.identify(bearer(NEW)).quota
    replace(file, FILE.replace(f'"{OLD}", ', ""))
    authenticator.refresh()
    assert authenticator.identify(bearer(NEW)).quota is quota
    with pytest.raises(Unauthenticated):
        authenticator.identify(bearer(OLD))
    replace(file, FILE.replace("requests_per_second = 5", "requests_per_second = 6"))
    authenticator.refresh()
    assert authenticator.identify(bearer(NEW)).quota is not quota
    replace(file, f'[clients.alice]\ntokens = ["{OLD}')
    authenticator.refresh()
    assert authenticator.identify(bearer(OTHER)).name == "operator"
    assert "clients.toml: not TOML" in caplog.text
    file.unlink()
    authenticator.refresh()
    assert authenticator.identify(bearer(OTHER)).name == "operator"
    assert not any(token in caplog.text for token in (OLD, NEW, OTHER))


def test_clients_of_a_file_are_sampled_only_where_it_says_so(tmp_path: Path) -> None:
    """Everybody is, without one: the operator turned it on."""
    (tmp_path / "clients.toml").write_text(
        f'[clients.private]\ntokens = ["{OLD}"]\n[clients.open]\ntokens = ["{NEW}"]\nsample = true'
    )
    authenticator = Authenticator(tmp_path / "clients.toml", manage=False)
    assert not authenticator.identify(bearer(OLD)).may_be_sampled
    assert authenticator.identify(bearer(NEW)).may_be_sampled
    assert Authenticator(None, manage=False).identify({}).may_be_sampled


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "clients: Field required"),
        ("[clients]", "clients: Dictionary should have at least 1 item"),
        ("[clients.a]", "clients.a: expected tokens, token_sha256 or certificate"),
        ('[clients.a]\ntokens = ["secret"]', "clients.a: tokens: expected at least 16 characters each"),
        ('[clients.a]\ntoken_sha256 = ["secret"]', "clients.a: token_sha256: expected 64 hexadecimal digits"),
        (
            '[clients.a]\ncertificate = "x"\nallow = ["secret"]',
            r"clients.a.allow.0: Input should be 'infer', 'attention'",
        ),
        ('[clients.a]\ncertificate = "x"\nsecret = 1', "clients.a.secret: Extra inputs are not permitted"),
        (
            '[clients.a]\ncertificate = "x"\nweight = 0',
            "weight: Input should be greater than 0",
        ),
        (
            '[clients.a]\ncertificate = "x"\nrequests_per_second = 0',
            "requests_per_second: Input should be greater than 0",
        ),
        ("secret", "not TOML"),
        (
            '[clients.a]\ntokens = ["a-secret-of-both-of-them"]\n[clients.b]\ntokens = ["a-secret-of-both-of-them"]',
            "clients.b: expected tokens and a certificate of its own",
        ),
        (
            '[clients.a]\ncertificate = "x"\n[clients.b]\ncertificate = "x"',
            "clients.b: expected tokens and a certificate of its own",
        ),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_and_shows_no_secret(
    content: str, message: str, tmp_path: Path
) -> None:
    """With the file, the field and what was expected."""
    (tmp_path / "clients.toml").write_text(content)
    with pytest.raises(StartError, match=message) as refused:
        Authenticator(tmp_path / "clients.toml", manage=True)
    assert str(refused.value).startswith(f"--clients: {tmp_path / 'clients.toml'}: ")
    told = "".join(traceback.format_exception(refused.value)).replace("shows_no_secret", "")
    assert "secret" not in told.replace("clients.a.secret", "")
    with pytest.raises(StartError, match=r"absent.toml: cannot be read: No such file"):
        Authenticator(tmp_path / "absent.toml", manage=True)


def test_the_shortest_token_and_any_rate_above_0_are_taken(tmp_path: Path) -> None:
    """Sixteen characters; half a request, and half a second of the engine, a second."""
    token, file = "x" * 16, tmp_path / "clients.toml"
    rates = "requests_per_second = 0.5\ncompute_seconds_per_second = 0.5"
    file.write_text(f'[clients.a]\ntokens = ["{token}"]\n{rates}')
    assert Authenticator(file, manage=True).identify(bearer(token)).quota.rates == (0.5, 0.5)
    for rate in (0, -0.5):
        file.write_text(f'[clients.a]\ntokens = ["{token}"]\ncompute_seconds_per_second = {rate}')
        with pytest.raises(StartError, match="compute_seconds_per_second: Input should be greater than 0"):
            Authenticator(file, manage=True)


@pytest.mark.parametrize("digest", ["0" * 63, "0" * 65, "g" * 64, "A" * 64])
def test_a_hash_of_another_length_or_alphabet_is_refused(digest: str, tmp_path: Path) -> None:
    """Sixty-four hexadecimal digits in lower case."""
    (tmp_path / "clients.toml").write_text(f'[clients.a]\ntoken_sha256 = ["{digest}"]')
    with pytest.raises(StartError, match="token_sha256: expected 64 hexadecimal digits"):
        Authenticator(tmp_path / "clients.toml", manage=True)


def test_a_certificate_has_its_common_name_and_its_alternatives() -> None:
    """As gRPC tells of it; without TLS there is none."""
    names = {"x509_common_name": [b"sensor"], "x509_subject_alternative_name": [b"a.example", b"\xff"], "other": [b"x"]}
    assert certificate_names(names) == ["sensor", "a.example", "\N{REPLACEMENT CHARACTER}"]
    assert certificate_names(None) == []
