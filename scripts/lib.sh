# shellcheck shell=bash
# What scripts/postgres, scripts/test and .ci/run would otherwise each repeat. Sourced, never run.

# Everything said to people goes to stderr: stdout carries only answers that callers read.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "$@"
  exit 1
}

# A server or a test run in a session of its own is out of reach of the terminal's Ctrl-C, which
# goes to every process of the foreground group at once: the script hears it alone and can end
# things in order. Systems without setsid (macOS) do without; `env` runs its arguments as they are.
# shellcheck disable=SC2034  # used by the scripts that source this
if command -v setsid >/dev/null; then detach=(setsid); else detach=(env); fi

# Installs Debian packages, or says what is missing where that is not possible.
apt_install() {
  command -v apt-get >/dev/null || die "please install the equivalent of Debian's $* and run this again"
  local as_root=(env)
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "please install $* (apt-get needs root, and there is no sudo)"
    as_root=(sudo)
  fi
  say "installing $*"
  # stdin is closed so that no package can wait for an answer; other apt runs, such as the first
  # unattended upgrade of a fresh machine, are waited for. Old package lists are often good enough,
  # hence only the second command decides.
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120)
  "${apt[@]}" update </dev/null >&2 || say "apt-get update failed; trying with the lists at hand"
  "${apt[@]}" install --yes --no-install-recommends "$@" </dev/null >&2 || die "could not install $*"
}

# What every build needs: cargo, and a C compiler for the bundled SQLite.
need_build_tools() {
  command -v cargo >/dev/null ||
    die "there is no cargo; install Rust 1.95 or newer, see https://www.rust-lang.org/tools/install"
  command -v cc >/dev/null || apt_install build-essential
}

# Sets `drop`, the prefix of commands that must not run as root: the server refuses to.
choose_user() {
  drop=(env)
  [ "$(id -u)" -eq 0 ] || return 0
  id -u postgres >/dev/null 2>&1 ||
    die "the server refuses to run as root, and there is no user 'postgres' to run it as"
  # Tried instead of looked up: a setpriv without --reuid (busybox) is no help. setpriv comes first
  # because it becomes the server, where the others stay around as its parent.
  drop=(setpriv "--reuid=$(id -u postgres)" "--regid=$(id -g postgres)" --init-groups)
  if "${drop[@]}" true 2>/dev/null; then return; fi
  drop=(runuser -u postgres --)
  if "${drop[@]}" true 2>/dev/null; then return; fi
  # shellcheck disable=SC2016  # expanded by the inner shell
  drop=(su -s /bin/sh -c 'exec "$0" "$@"' -- postgres)
  if "${drop[@]}" true 2>/dev/null; then return; fi
  die "none of setpriv, runuser and su can run a command as the user 'postgres'"
}
