"""A sound is decoded where images are, in its turn, and counted while it is held."""

import time

import pytest

from artifact.contract import read_contract
from artifact.images import ImageLimits
from server.config import EMBEDDED_MODELS
from server.context import RpcContext
from server.errors import InvalidInput, NotPossible, TooBusy
from server.inference.decoding import LARGE_PIXELS
from server.inference.preprocess import InputLimits, prepare_sound
from server.inference.sound import AudioLimits
from server.inference.sound_rows import audio_contract, read_sound
from server.ledger import Account, Ledger
from tests.artifact.sounds import noise, write_sound
from tests.golden import GOLDEN_WHISPER
from tests.server.fakes import CONTRACT, make_model
from tests.server.inference.test_image_rows import Jobs, jobs

__all__ = ["jobs"]
WHISPER = make_model(read_contract(GOLDEN_WHISPER / "tiny-whisper" / "1" / "contract.json"))
LIMITS = InputLimits(8, 100, ImageLimits(), LARGE_PIXELS, audio=AudioLimits(2**20, 100_000))


async def test_a_sound_is_two_jobs(jobs: Jobs) -> None:
    """Its header is looked at first; then it is decoded as something large, whose time its caller is charged for."""
    ledger, context = Ledger(), RpcContext()
    context.account = Account(ledger)
    contract = audio_contract(WHISPER)
    sound = await read_sound(write_sound(noise(0.5, channels=2)), contract, LIMITS, jobs, context)
    assert jobs.pixels[0] == 0
    assert jobs.pixels[1] == 2 * 16_000 + 2 * LARGE_PIXELS
    assert context.decoding_seconds > 0
    assert ledger.held_bytes == sound.values.nbytes
    prepared = prepare_sound(WHISPER, sound)
    assert (prepared.rows, prepared.length, prepared.source) == (1, 50, sound)
    assert [(name, array.shape) for name, array in prepared.inputs.items()] == [("input_features", (1, 8, 100))]


async def test_one_for_which_there_is_no_room_is_not_decoded(jobs: Jobs) -> None:
    """The answer says that it may come again."""
    ledger = Ledger(max_bytes=1000)
    Account(ledger).hold("call", 1001)
    context = RpcContext()
    context.account = Account(ledger)
    with pytest.raises(TooBusy, match="the server holds"):
        await read_sound(write_sound(noise(0.5)), audio_contract(WHISPER), LIMITS, jobs, context)
    assert jobs.pixels == []
    assert ledger.held_bytes == 1001


async def test_what_decoding_takes_is_counted_beside_the_file(jobs: Jobs) -> None:
    """A file that there is room for may be decoded to more."""
    content, context = write_sound(noise(0.5), kind="FLAC"), RpcContext()
    context.account = Account(ledger := Ledger(max_bytes=5 * len(content)))
    Account(ledger).hold("call", 1)  # alone it might take more
    with pytest.raises(TooBusy, match="the server holds"):
        await read_sound(content, audio_contract(WHISPER), LIMITS, jobs, context)
    assert jobs.pixels == [0]
    assert ledger.held_bytes == len(content) + 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no sound", "audio: 8 bytes that start with"),
        (write_sound(noise(1.1)), r"audio: 1\.10 seconds; expected at most 1, which the model hears"),
        (write_sound(noise(0.9, 48_000, 3), 48_000), r"audio: 129600 samples in 3 channels; expected at most 100000"),
        (write_sound(noise(0.5), kind="FLAC")[:-100], "expected a whole WAV or FLAC file"),
    ],
)
async def test_what_cannot_be_used_is_the_callers_fault(content: bytes, message: str, jobs: Jobs) -> None:
    """Whether its header or its samples tell."""
    with pytest.raises(InvalidInput, match=message):
        await read_sound(content, audio_contract(WHISPER), LIMITS, jobs, RpcContext(deadline=time.monotonic() + 60))


def test_models_that_take_something_else_say_so() -> None:
    """What they take is told."""
    fashion = make_model(read_contract(EMBEDDED_MODELS / "fashion" / "1" / "contract.json"))
    with pytest.raises(NotPossible, match="audio: fashion takes no audio; expected an image"):
        audio_contract(fashion)
    with pytest.raises(NotPossible, match=f"audio: {CONTRACT.name} takes no audio; expected a text"):
        audio_contract(make_model(CONTRACT))
