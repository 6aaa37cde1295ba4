#!/bin/sh
# The demo: from an empty directory to a table of results. Run it again to see that nothing is trained twice.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
project=${1:-demo}

say() { printf '\n$ %s\n' "$*"; "$@"; }

say synicix-run init "$project"
cd "$project"
if [ ! -e datasets/static60000-1-1-simulated.h5 ]; then
    say synicix-run neurodata simulate datasets --recordings 3
fi
cp "$here/demo.toml" .
say synicix-run add demo.toml

printf '\n$ synicix-run populate &  synicix-run populate   # two workers\n'
synicix-run populate & first=$!
synicix-run populate & second=$!
wait "$first"
wait "$second"

say synicix-run results --over seed
say synicix-run status

bin=$(dirname "$(command -v synicix-run)")
activate=
if [ -z "${VIRTUAL_ENV:-}" ] && [ -f "$bin/activate" ]; then
    activate="  . $bin/activate
"
fi
cat <<END

Everything is in $PWD. What to type next:
  cd $project
$activate  synicix-run results                    # every task, best first
  synicix-run show TASK                  # everything about one of them (its first digits are enough)
  synicix-run load TASK                  # the trained model, and how to use it in Python
  synicix-run db stop                    # stop the database; it starts again by itself
END
