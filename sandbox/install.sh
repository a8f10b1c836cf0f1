#!/bin/sh
# Installs what the sandbox is built with, if it is not there: bubblewrap, socat and ripgrep.
# With --as-root it does nothing unless it is root who asks.
set -eu

if [ "${1-}" = --as-root ] && [ "$(id -u)" -ne 0 ]; then exit 0; fi
if command -v bwrap >/dev/null && command -v socat >/dev/null && command -v rg >/dev/null; then exit 0; fi

sudo=
if [ "$(id -u)" -ne 0 ]; then sudo=sudo; fi

if command -v apt-get >/dev/null; then
  $sudo apt-get update
  $sudo apt-get install -y bubblewrap socat ripgrep
elif command -v dnf >/dev/null; then
  $sudo dnf install -y bubblewrap socat ripgrep
elif command -v pacman >/dev/null; then
  $sudo pacman -S --noconfirm --needed bubblewrap socat ripgrep
elif command -v zypper >/dev/null; then
  $sudo zypper --non-interactive install bubblewrap socat ripgrep
elif command -v apk >/dev/null; then
  $sudo apk add bash bubblewrap socat ripgrep
else
  echo "No package manager is known here; install bubblewrap, socat and ripgrep by hand" >&2
  exit 1
fi
