# Sourced by the other scripts: makes .venv and installs what $1 (extras) asks for, once per change of the lists.
# Needs Python >= 3.11 and pip; PYTHON=... chooses the interpreter.
set -euo pipefail
# Where this is set each of our many processes compiles the whole broker anew before it can start.
unset PYTHONDONTWRITEBYTECODE
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
    [ -n "$candidate" ] || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$candidate"; return; }
  done
  echo "Python 3.11 or newer was not found; set PYTHON=/path/to/python." >&2
  return 1
}

install() { # extras
  local python=.venv/bin/python stamp=.venv/.installed wanted
  # At hand, once it is there; others may be behind shims, which take their time.
  "$python" -c '' 2>/dev/null || python=$(find_python)
  wanted="$1 $(cat pyproject.toml constraints.txt | "$python" -c 'import hashlib,sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
  if installed; then
    return
  fi
  if [ ! -w . ]; then
    echo "This folder is not writable for $(id -un): clone the project somewhere of your own." >&2
    return 1
  fi
  python=$(find_python)
  # Scripts that start together install once: the lock is on this very file, and Python takes it because not every
  # system has flock(1). It belongs to descriptor 9, so it lasts until that is closed, whatever ends this shell.
  exec 9<scripts/env.sh
  "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  installed || make_environment "$1"
  exec 9<&-
}

installed() { # The fuller set serves the smaller one, so `up` after `test` installs nothing.
  [ -x .venv/bin/python ] && [ -f "$stamp" ] && grep -qF "${wanted#* }" "$stamp" \
    && { grep -q '^embedded,dev' "$stamp" || [ "$(cat "$stamp")" = "$wanted" ]; }
}

make_environment() { # extras
  echo "Installing into .venv (once) ..." >&2
  # Some distributions ship venv without ensurepip; pip can install into such an environment from outside.
  [ -x .venv/bin/python ] || "$python" -m venv .venv >/dev/null 2>&1 || "$python" -m venv --clear --without-pip .venv
  local pip=(.venv/bin/python -m pip)
  "${pip[@]}" --version >/dev/null 2>&1 || pip=("$python" -m pip --python .venv/bin/python)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    echo "$python has no pip (22.3 or newer): install it (Debian: apt install python3-pip), or set PYTHON to one that has." >&2
    return 1
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check -c constraints.txt -e ".[$1]" >&2
  compiled
  echo "$wanted" >"$stamp.new"
  mv "$stamp.new" "$stamp"
}

compiled() { # Or each of the processes that `up` starts first would do it.
  .venv/bin/python -m compileall -q broker bench
}
