#!/bin/sh
# Puts the fuzzer, atheris, into .venv if it is not there. POSIX sh, run by `make fuzz` after setup-venv.sh.
#
# It is no requirement of the suite: there are wheels for Linux on x86_64 with glibc and CPython 3.11 to 3.14
# only, and building it takes a compiler with libFuzzer. Where there is none, that is said and nothing is done.
set -eu
unset CDPATH VIRTUAL_ENV PYTHONHOME PYTHONPATH
cd "$(dirname "$0")/.."
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

pins=tests/fuzz/requirements.txt
python=.venv/bin/python

say() { printf '%s\n' "$*" >&2; }

have() { "$python" -c 'import atheris' >/dev/null 2>&1; }

install() {
    if uv --version >/dev/null 2>&1; then
        uv pip install --quiet --python "$python" --only-binary :all: --require-hashes -r "$pins"
    else
        "$python" -m pip install --quiet --only-binary :all: --require-hashes -r "$pins"
    fi
}

have && exit 0
say 'Installing the fuzzer into .venv: once, about 40 MB ...'
if ! install || ! have; then
    here="$("$python" -c 'import platform as p
print(p.python_implementation(), p.python_version(), "on", p.system(), p.machine(), *p.libc_ver())')"
    say "No fuzzing here: atheris cannot be installed. It has wheels for CPython 3.11 to 3.14 on Linux, x86_64,"
    say "glibc; this is $here. What it found before is in the suite: make test."
    exit 1
fi
