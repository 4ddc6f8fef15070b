"""The vectors are what they say they are, by an implementation that is not ours; and its check can fail."""

import base64
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

VECTORS = pathlib.Path(__file__).parents[1] / "vectors"
FILES = sorted(str(path.relative_to(VECTORS)) for path in VECTORS.glob("*/*.json"))
MEMBERS = ["enc_session_key", "nonce", "tag", "ciphertext", "hdr", "sig", "x"]


@pytest.fixture
def run(tmp_path):
    """Runs the check over a copy of one file of vectors, or of all, in which `change` has changed something."""

    def run(name="*/*.json", change=lambda content: None):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for path in {*VECTORS.glob(name), *VECTORS.glob(f"{name.split('/')[0]}/keys.json"), VECTORS / "check.py"}:
            copy = folder / path.relative_to(VECTORS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
            if path == VECTORS / name:
                content = json.loads(copy.read_text("utf-8"))
                change(content)
                copy.write_text(json.dumps(content), "utf-8")
        command = [sys.executable, "-W", "ignore", str(folder / "check.py")]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run


def test_every_vector_opens_or_is_refused_as_it_says(run):
    done = run()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    results = [case["result"] for name in FILES for case in cases(json.loads((VECTORS / name).read_text("utf-8")))]
    opened, refused = map(int, re.fullmatch(r"(\d+) vectors opened, (\d+) refused\n", done.stdout).groups())
    assert opened + refused == len(results) > 600, "each was looked at"
    assert opened >= results.count("valid") > 130 and refused >= results.count("invalid") > 450


def cases(content):
    return content.get("envelopes", []) + content.get("messages", [])


def flipped(text, at):
    """Base64 with one bit of one byte the other way."""
    data = bytearray(base64.b64decode(text))
    data[at % len(data)] ^= 1 << at % 8
    return base64.b64encode(data).decode()


def flip(case, member, at):
    """Changes one byte of one member of a vector."""
    part_of_message = "envelopes" in case
    envelope = case["envelopes"][0] if part_of_message else case.get("envelope")
    members = json.loads(envelope) if envelope else case["members"]
    value = members[member]
    if member == "x":
        members["x"]["mac"] = flipped(value["mac"], at)
    elif member == "enc_session_key":
        # Of several recipients all, because those of the others concern nobody where nothing is signed.
        members[member] = flipped(value, at)
        if "wraps" in members:
            members["wraps"] = [flipped(wrap, at) for wrap in members["wraps"]]
    else:
        members[member] = flipped(value, at)
    if part_of_message:
        case["envelopes"][0] = json.dumps(members)
    elif envelope:
        case["envelope"] = json.dumps(members)


def valid_ones(name):
    """The valid vectors of a file, by id, with the members they have bytes in."""
    found = {}
    for case in cases(json.loads((VECTORS / name).read_text("utf-8"))):
        if case["result"] == "valid":
            envelope = case.get("envelope") or case.get("envelopes", [None])[0]
            members = json.loads(envelope) if envelope else case["members"]
            looked_at = MEMBERS if "senders" in case else MEMBERS[:5]
            found[case["id"]] = [member for member in looked_at if members.get(member)]
    return found


@pytest.mark.parametrize("name", [name for name in FILES if valid_ones(name)])
def test_a_byte_changed_in_any_member_of_a_valid_vector_is_found(run, name):
    """Every valid vector of the file gets one byte changed, in one member after the other."""
    changed = []

    def change(content):
        for at, case in enumerate(cases(content)):
            members = valid_ones(name).get(case["id"])
            if members:
                flip(case, members[at % len(members)], at)
                changed.append(case["id"])

    done = run(name, change)
    assert done.returncode == 1
    assert sorted(done.stdout.split("\n")[1:-1]) == sorted(f"not as it says: {name}: {case}" for case in changed)


@pytest.mark.parametrize("name", [name for name in FILES if "invalid" in name])
def test_an_invalid_vector_that_opens_is_found(run, name):
    good = json.loads((VECTORS / name.replace("invalid", "valid")).read_text("utf-8"))["envelopes"][0]
    done = run(name, lambda content: content["envelopes"].append({**good, "id": "opens", "result": "invalid"}))
    assert (done.returncode, done.stdout.split("\n")[1]) == (1, f"not as it says: {name}: opens")


def test_another_text_another_fingerprint_and_no_vectors_at_all_are_found(run):
    def another_text(content):
        content["envelopes"][0]["plaintext"] = {"b64": base64.b64encode(b"another").decode()}

    def another_fingerprint(content):
        content["keys"]["rsa-a"]["fingerprint"] = content["keys"]["rsa-b"]["fingerprint"]

    assert run("envelope-v2/valid.json").returncode == 0
    assert run("envelope-v2/valid.json", another_text).returncode == 1
    assert run("envelope-v2/keys.json").stdout == "0 vectors opened, 0 refused\n"
    assert run("envelope-v2/keys.json", another_fingerprint).stdout.endswith("not as it says: rsa-a\n")
    assert run("envelope-v2/keys.json").returncode == 1, "no vectors"
