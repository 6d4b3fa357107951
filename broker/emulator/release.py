"""Release causes of a call, ``stateCode``, as far as the emulator's rules give one (contract 8.1)."""

from __future__ import annotations

from typing import Final

NORMAL: Final = 0
NO_VOICE_FILE: Final = 8006
TIME_IS_UP: Final = 8010
NO_CALLEE: Final = 8013
NO_BINDING: Final = 8014
DIRECTION_BARRED: Final = 8016
CUSTOMER_CLOSED: Final = 8017
NO_SERVICE: Final = 8018
NO_CALLBACK: Final = 8019
NO_EXTENSION: Final = 8022
LANDLINE_CALLER: Final = 8023
REAL_CALLER_BARRED: Final = 8024
NO_AXYB_BINDING: Final = 8030
NO_Y: Final = 8031
OWN_NUMBER: Final = 8032
EXTENSION_NOT_ENTERED: Final = 8033
X_UNUSABLE: Final = 8055
