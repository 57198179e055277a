#!/bin/bash
# Finds words and phrases that messages, documents, comments and names must not have. Prints each line with its place and the
# replacement. Usage: words.sh, from the root of the checkout.
set -euo pipefail

list=tests/words.txt
found=0
while IFS=$'\t' read -r scope pattern instead; do
    case $scope in
        text) files=$(git ls-files -- '*.md' '*.rs' '*.wit' '*.sh' Makefile docs/openapi.json ':!tests/vectors' ':!tests/golden' ':!tests/words.sh') ;;
        name) files=$(git ls-files -- '*.rs') ;;
        *) continue ;;
    esac
    # shellcheck disable=SC2086
    if lines=$(grep -nE -- "$pattern" $files); then
        found=1
        while IFS= read -r line; do echo "$line    → $instead"; done <<<"$lines"
    fi
done <"$list"
[ "$found" = 0 ] || {
    echo "words.sh: replace these words; tests/words.txt lists them" >&2
    exit 1
}
