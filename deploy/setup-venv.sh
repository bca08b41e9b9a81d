#!/bin/sh
# Makes .venv hold exactly what requirements.txt pins, and colonies itself, editable. POSIX sh, run by make.
#
# The stamp is written last and says for which folder and which files the work was done. So a .venv that was
# interrupted, copied or moved is rebuilt, one that is merely old is brought up to date, and one that is right
# costs a few milliseconds.
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

stamp=.venv/.colonies-setup
here=$(pwd -P)
wanted="$here
$(cat pyproject.toml requirements.txt deploy/setup-venv.sh | cksum)"

say() { printf '%s\n' "$*" >&2; }

venv_runs() { .venv/bin/python -c '' >/dev/null 2>&1; }

if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && venv_runs; then
    exit 0
fi

trap 'say "Stopped half-way: the next make starts .venv over."; exit 130' INT TERM

# Another project's environment, or a person's own pip settings, must not redirect this one.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

if uv --version >/dev/null 2>&1; then
    tool=uv
else
    tool=pip
fi

# Sets `python` to the first that can do the work, else `old` or `bare` to what comes nearest. A name on the PATH
# proves nothing: pyenv's shims exist for versions that are not chosen and fail when run. So each is run.
find_python() {
    python='' old='' bare=''
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        "$name" -c '' >/dev/null 2>&1 || continue
        if ! "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            old=${old:-$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
        elif [ "$tool" = pip ] && ! "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            bare=${bare:-$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
        else
            python=$("$name" -c 'import sys; print(sys.executable)')
            return
        fi
    done
}

# Says what is missing and the one command that mends it.
give_up() {
    if [ -n "$bare" ]; then
        missing="Python $bare is here, but not its modules venv and ensurepip"
        apt="python$bare-venv"
    elif [ -n "$old" ]; then
        missing="Colonies needs Python 3.11 or newer; the newest here is $old"
        apt=python3.11-venv
    else
        missing='Colonies needs Python 3.11 or newer; there is none on the PATH'
        apt=python3-venv
    fi
    if command -v apt-get >/dev/null; then
        mend="apt install $apt"
    elif command -v brew >/dev/null; then
        mend='brew install python'
    elif command -v dnf >/dev/null; then
        mend='dnf install python3.12'
    elif command -v apk >/dev/null; then
        mend='apk add python3'
    else
        mend='install Python 3.11 or newer with pip and venv'
    fi
    say "$missing. Mend it with:"
    say "    $mend"
    exit 1
}

install_with_uv() {
    if [ ! -d .venv ]; then
        uv venv --quiet --no-project --python "$python" .venv
    fi
    uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.txt
    uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .
}

install_with_pip() {
    if [ ! -d .venv ]; then
        "$python" -m venv .venv
    fi
    .venv/bin/python -m pip install --quiet --require-hashes -r requirements.txt
    .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
}

# A .venv made by uv has no pip, so without uv it is no use for an update.
can_be_updated() {
    [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$here" ] && venv_runs &&
        { [ "$tool" = uv ] || .venv/bin/python -m pip --version >/dev/null 2>&1; }
}

if can_be_updated; then
    say 'Bringing .venv up to date ...'
    rm -f "$stamp"
else
    find_python
    if [ -z "$python" ]; then
        give_up
    fi
    say "Setting up .venv with $("$python" --version 2>&1) and $tool: once, about 60 MB ..."
    rm -rf .venv
fi

"install_with_$tool"
printf '%s\n' "$wanted" >"$stamp"
say '.venv is ready.'
