# Sourced: a lock that no other user can hold.
set -eu

# Opens a lock on 9, which goes with this shell, however that ends.  Whoever can read it could hold it
# for ever: it is this user's alone, and one that wasn't is replaced.
open_lock() {
    case $(stat -c %a "$1" 2>/dev/null) in
        '' | 600) ;;
        *) rm -f "$1" ;;
    esac
    (umask 077 && : >>"$1")
    exec 9>>"$1"
}
