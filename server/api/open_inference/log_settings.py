"""The log's level as the protocol's log settings show and change it."""

import logging
from collections.abc import Mapping

from server.api.open_inference import open_inference_pb2 as pb
from server.errors import InvalidInput

Settings = Mapping[str, pb.LogSettingsRequest.SettingValue]

# From the most verbose; a level is logged where its own setting or one before it is on.
_LEVELS = {
    "log_verbose_level": logging.DEBUG,
    "log_info": logging.INFO,
    "log_warning": logging.WARNING,
    "log_error": logging.ERROR,
}
_NOTHING = logging.CRITICAL + 1
_FIXED = {"log_file": "", "log_format": "default"}


def read_log_settings() -> dict[str, pb.LogSettingsResponse.SettingValue]:
    """Say what is logged."""
    level = logging.getLogger().getEffectiveLevel()
    shown = {name: pb.LogSettingsResponse.SettingValue(string_param=value) for name, value in _FIXED.items()}
    for name, threshold in _LEVELS.items():
        on = level <= threshold
        shown[name] = (
            pb.LogSettingsResponse.SettingValue(uint32_param=int(on))
            if name == "log_verbose_level"
            else pb.LogSettingsResponse.SettingValue(bool_param=on)
        )
    return shown


def change_log_settings(settings: Settings) -> None:
    """Set the level to the most verbose one that is on.

    Raises:
        InvalidInput: A setting is unknown, of another type, or cannot be changed; nothing is changed then.
    """
    level = logging.getLogger().getEffectiveLevel()
    on = {name: level <= threshold for name, threshold in _LEVELS.items()}
    for name, setting in settings.items():
        kind = setting.WhichOneof("parameter_choice")
        value = getattr(setting, kind) if kind else None
        if name in _FIXED:
            if value not in (None, _FIXED[name]):
                raise InvalidInput(f"settings[{name}]", repr(value), f"{_FIXED[name]!r}, which cannot be changed")
            continue
        if name not in _LEVELS:
            raise InvalidInput("settings", repr(name), f"one of {', '.join((*_LEVELS, *_FIXED))}")
        wanted = "uint32_param" if name == "log_verbose_level" else "bool_param"
        if kind != wanted:
            raise InvalidInput(f"settings[{name}]", kind, f"a {wanted}")
        on[name] = bool(value)
    if settings:
        logging.getLogger().setLevel(next((_LEVELS[name] for name in _LEVELS if on[name]), _NOTHING))
