"""The server inside Envoy, which calls `app` for its life and for each call; see launcher.py, which starts it.

It ends when the launcher closes its end of a pipe, or has died.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from server.address import split_address
from server.api.calls import Calls
from server.app import serve
from server.auth.clients import Authenticator
from server.config import Config
from server.main import announce, ending, set_up
from server.transport.auth_interceptor import AuthInterceptor
from server.transport.connections import hang_up, stop_listening
from server.transport.envoy.application import GrpcApplication
from server.transport.envoy.call import Receive, Send
from server.transport.envoy.launcher import Start
from server.transport.refusals import Refusals
