"""Decodes a request's sound: looks at its header first, then decodes it when its turn comes."""

from functools import partial

from artifact.audio_contract import AudioContract
from artifact.audio_files import AudioFile
from server.context import RpcContext
from server.errors import refusing_inputs
from server.inference.decoding import Decoders
from server.inference.preprocess import InputLimits
from server.inference.refusals import takes_no
from server.inference.sound import Sound, decode_audio, open_audio
from server.repository.loading import LoadedModel

# What an image takes as long as: decoding and resampling take 40 ns a sample, a spectrogram of half a minute 40 ms.
_PIXELS_A_SAMPLE, _PIXELS = 2, 2**21
_EXPECTED_SECONDS = 20e-9  # of a pixel
_DECODED_BYTES = 12  # of a sample, while channels are mixed and resampled


def audio_contract(model: LoadedModel) -> AudioContract:
    """Say how a model's sound is prepared.

    Raises:
        NotPossible: It takes something else.
    """
    if model.contract.audio is None:
        raise takes_no(model, "audio")
    return model.contract.audio


async def read_sound(
    content: bytes, contract: AudioContract, limits: InputLimits, decoders: Decoders, context: RpcContext
) -> Sound:
    """Decode a sound file.

    Args:
        content: The file.
        contract: How to prepare it.
        limits: Looked at before anything is decoded.
        decoders: Where that is done.
        context: For whom, and by when.

    Raises:
        InvalidInput: It cannot be used.
        TooBusy: The client has used its quota, or too much is held.
        DeadlinePassed: Before it was decoded.
        ShuttingDown: The server is stopping.
    """
    context.account.reserve(input=len(content))  # of which a decoder gets a part
    (opened,) = await decoders.run([(partial(_open, content, contract, limits), 0)], context)
    samples = opened.frames * opened.channels
    context.account.reserve(input=len(opened.content) + _DECODED_BYTES * samples)
    pixels = _PIXELS_A_SAMPLE * samples + _PIXELS
    reserved, quota = pixels * _EXPECTED_SECONDS, context.caller.quota
    quota.reserve(reserved, context.decoding_seconds)
    try:
        (sound,) = await decoders.run([(partial(_decode, opened, contract), pixels)], context)
        context.account.hold("input", sound.values.nbytes)
        return sound
    finally:
        quota.charge(reserved, 0.0)  # it was charged for what it took


def _open(content: bytes, contract: AudioContract, limits: InputLimits) -> AudioFile:
    with refusing_inputs():
        return open_audio(content, contract, limits.audio)


def _decode(opened: AudioFile, contract: AudioContract) -> Sound:
    with refusing_inputs():
        return decode_audio(opened, contract)
