#!/bin/sh
# Makes .venv and installs relay into it, with what it needs of the system: quick when nothing
# changed. Arguments: commands that must be there (redis-server swaks …); each is installed with the
# system's package manager where it is absent, after saying so, and asking on a terminal unless root
# or CI.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'set-up: %s\n' "$*"; }
fail() { printf 'set-up: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install_packages WHY PACKAGE...
install_packages() {
    why=$1; shift
    command -v apt-get >/dev/null || fail "$why; please install: $*"
    say "$why; installing with apt-get: $*"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "sudo is missing; as root, run: apt-get install $*"
        if [ "${CI:-}" != true ]; then
            [ -t 0 ] || fail "nobody to ask; run: sudo apt-get install $*"
            printf 'set-up: run "sudo apt-get install %s" now? [Y/n] ' "$*"
            read -r answer
            case $answer in [nN]*) fail "install it and run make again: $*" ;; esac
        fi
    fi
    as_root apt-get update -qq || say "apt-get update failed; trying with the lists there are"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ||
        fail "apt-get could not install: $*"
}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do
        if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

make_venv() {
    python=$(find_python)
    if [ -z "$python" ]; then
        install_packages "there is no Python 3.11 or newer" python3 python3-venv
        python=$(find_python)
        [ -n "$python" ] || fail "relay needs Python 3.11 or newer (set PYTHON=/path/to/python3)"
    fi
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        # Debian splits venv off; its package is named after the interpreter.
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        install_packages "$python has no venv module" "$version-venv"
        "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python still has no venv module"
    fi
    say "creating .venv with $python"
    "$python" -m venv --clear .venv
}

for command in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null && continue
    if [ "$command" = redis-server ]; then
        command -v valkey-server >/dev/null && continue
        [ -n "${RELAY_REDIS_SERVER:-}" ] && continue
    fi
    package=$command
    [ "$command" = ip ] && package=iproute2
    [ "$command" = node ] && package=nodejs
    install_packages "$command is missing" "$package"
done

[ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null || make_venv
stamp="$PWD $(cat pyproject.toml constraints.txt | cksum)"
if [ "$(cat .venv/.set-up 2>/dev/null)" != "$stamp" ] || [ ! -x .venv/bin/relay ]; then
    say "installing relay and its packages into .venv (about a minute the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable '.[dev]' || fail "pip could not install relay"
    printf '%s\n' "$stamp" >.venv/.set-up
fi
