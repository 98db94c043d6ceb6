"""What can go wrong with an export: each a line for people, that says what was expected.

ExportError             nothing was published
├── FetchError          a package with weights cannot be had
├── HubError            the hub does not give a model, or not one that can be exported
├── SampleError         the real inputs for a lower precision cannot be used
├── TraceError          torch cannot export the network
├── ProbeError          the graph does not run on its own inputs
├── TapError            its attention cannot be tapped
├── RelevanceError      the relevance of its input cannot be computed
├── AccuracyError       a lower precision costs too much
├── VerificationError   the graphs do not do what the network does
└── PublishError        the version cannot be published

A checkpoint that cannot be read is a CheckpointError of model/, which knows nothing of exports.
"""

NOT_DOWNLOADED = 69
"""Exit code of the command where a package could not be downloaded: EX_UNAVAILABLE of BSD's sysexits.h."""


class ExportError(Exception):
    """An export that did not come about; the message is for people."""


class FetchError(ExportError):
    """A package that could not be downloaded, or a file in it that is not the expected one."""


class DownloadError(FetchError):
    """A package could not be downloaded; there may be no network."""


class HubError(ExportError):
    """A model of the hub that could not be downloaded, or has no safetensors; says how to fetch it elsewhere."""


class SampleError(ExportError):
    """Samples that cannot be used; the message names the file and what was expected."""


class TraceError(ExportError):
    """A network that torch cannot export."""


class ProbeError(ExportError):
    """A graph that does not run on its own inputs."""


class TapError(ExportError):
    """A graph whose attention cannot be tapped; the message says why and names the node."""


class AccuracyError(ExportError):
    """A lower precision costs more than is allowed; lists every measure that misses its limit."""


class VerificationError(ExportError):
    """The graphs do not do what the network does; lists every failed check with its difference and limit."""


class PublishError(ExportError):
    """A version that cannot be published."""


class RelevanceError(ExportError):
    """A graph whose relevance cannot be computed; names the operator that has no reverse rule, and its node."""
