# Runs the command in $2 and on such that the packages it installs start no service.
#
# Debian's packages ask the file in $1 before they start one. A file that is there already stays as it is; ours goes
# away however the command ends, an interrupt included, which is why this is a shell with a trap.
policy=$1
shift
trap 'exit 130' INT HUP TERM
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
"$@"
