#!/usr/bin/env bash
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# name here, repository on the hub, file in it
FILES='Open-AgentRL-30K Gen-Verse/Open-AgentRL-30K Open-AgentRL-30K.parquet
Open-AgentRL-SFT-3K Gen-Verse/Open-AgentRL-SFT-3K full_sft_3k_shuffled_v4.parquet
aime2024 Gen-Verse/Open-AgentRL-Eval aime2024/aime_2024_problems.parquet
aime2025 Gen-Verse/Open-AgentRL-Eval aime2025/aime_2025_problems.parquet
gpqa_diamond Gen-Verse/Open-AgentRL-Eval gpqa-diamond/gpqa_diamond.parquet
lcb_v6_2502_2505 Gen-Verse/Open-AgentRL-Eval livecodebench-v6/lcb_v6_2502_2505.parquet'

usage() {
    cat <<TEXT
usage: [VARIABLE=value ...] bash dataset/download.sh [NAME ...]

Fetches the data sets from the Hugging Face hub into dataset/, all of them or those that are named:

$(sed 's/^\([^ ]*\) \(.*\) \(.*\)$/  \1.parquet\t\2: \3/' <<<"$FILES" | expand -t 32)

A transfer that breaks off goes on where it was, now or when the script is started again. A file is there whole or not at
all: its SHA-256 is compared with the hub's and with SHA256SUMS, where the first download records it. A file that is there
is checked and not fetched again. To check all at any time: cd dataset && sha256sum -c SHA256SUMS

  DATA_DIR=$HERE
                        where the files go
  HF_ENDPOINT=https://huggingface.co
                        the hub, or a mirror of it
  HF_TOKEN              for a hub or mirror that wants one
  REVISION=main         branch, tag or commit of the repositories
  TRIES=5               times in a row that a transfer may break off without getting on
  DRY_RUN=0             1: say what would be fetched from where, fetch nothing

  HF_ENDPOINT=https://mirror.example bash dataset/download.sh aime2024 aime2025
TEXT
}

fail() { echo "download: $*" >&2; exit 1; }
refuse() { echo "download: $*" >&2; exit 2; }

NAMES=()
for argument in "$@"; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        -*) refuse "$argument is unknown; see --help." ;;
    esac
    name=$(basename "$argument" .parquet)
    grep -q "^$name " <<<"$FILES" || refuse "$argument is unknown; there are: $(cut -d ' ' -f 1 <<<"$FILES" | paste -sd ' ')"
    NAMES+=("$name")
done
[ ${#NAMES[@]} -gt 0 ] || mapfile -t NAMES < <(cut -d ' ' -f 1 <<<"$FILES")

DATA_DIR=${DATA_DIR:-$HERE} REVISION=${REVISION:-main} TRIES=${TRIES:-5} DRY_RUN=${DRY_RUN:-0}
HF_ENDPOINT=${HF_ENDPOINT:-https://huggingface.co}
HF_ENDPOINT=${HF_ENDPOINT%/}
[[ $TRIES =~ ^[1-9][0-9]*$ ]] || refuse "TRIES=$TRIES must be a whole number, 1 or more."
case $DRY_RUN in 0 | 1) ;; *) refuse "DRY_RUN=$DRY_RUN must be 0 or 1." ;; esac

source_of() { awk -v name="$1" '$1 == name { print $2, $3 }' <<<"$FILES"; }

address_of() {   # name
    local repository file
    read -r repository file < <(source_of "$1")
    echo "$HF_ENDPOINT/datasets/$repository/resolve/$REVISION/$file"
}

recorded_sum() { awk -v file="$1.parquet" '$2 == file { print $1 }' "$DATA_DIR/SHA256SUMS" 2>/dev/null || true; }
sum_of() { sha256sum "$1" | cut -d ' ' -f 1; }

if [ "$DRY_RUN" = 1 ]; then
    for name in "${NAMES[@]}"; do
        if [ -f "$DATA_DIR/$name.parquet" ]; then what=check; else what=fetch; fi
        printf '%s %s\n      from %s\n' "$what" "$DATA_DIR/$name.parquet" "$(address_of "$name")"
    done
    echo "Dry run: nothing was fetched."
    exit 0
fi

command -v curl >/dev/null || refuse "curl is not installed. Install it, or fetch the files by hand, see dataset/README.md."
command -v sha256sum >/dev/null || refuse "sha256sum is not installed; it comes with coreutils."
mkdir -p "$DATA_DIR"
# Two at a time would write into one unfinished file.
if command -v flock >/dev/null; then
    exec 9>"$DATA_DIR/.download.lock"
    flock -n 9 || refuse "another download into $DATA_DIR is running."
fi

request() {   # arguments of curl; the token never stands in the list of processes, and goes to no other host
    curl --silent --show-error --connect-timeout 20 --config <(
        [ -z "${HF_TOKEN:-}" ] || printf 'header = "Authorization: Bearer %s"\n' "$HF_TOKEN"
    ) "$@"
}

unreachable() {   # address, curl's message
    fail "cannot fetch $1 ($2).
  Without a way to the hub: set HF_ENDPOINT to a mirror, or https_proxy to a proxy; or fetch the files on another machine
  with this script and copy them into $DATA_DIR, SHA256SUMS included."
}

expect() {   # address: what the hub says of the file, before it redirects to its storage; sets WANTED_SUM
    local head status message
    message=$(mktemp)
    head=$(request --head "$1" 2>"$message") || {
        local text
        text=$(sed 's/^curl: //' "$message")
        rm -f "$message"
        unreachable "$1" "$text"
    }
    rm -f "$message"
    head=$(tr -d '\r' <<<"$head")
    status=$(awk '/^HTTP/ { status = $2 } END { print status }' <<<"$head")
    case $status in
        2?? | 3??) ;;
        401 | 403) fail "$1: the hub refuses it (status $status). Accept the data set's terms on its page and set HF_TOKEN." ;;
        404) fail "$1: no such file (status 404). Check REVISION=$REVISION and HF_ENDPOINT=$HF_ENDPOINT." ;;
        *) unreachable "$1" "status $status" ;;
    esac
    WANTED_SUM=$(awk -F ': ' 'tolower($1) == "x-linked-etag" { gsub(/"/, "", $2); print $2 }' <<<"$head")
    [[ $WANTED_SUM =~ ^[0-9a-f]{64}$ ]] || WANTED_SUM=''
}

transfer() {   # address, unfinished file: go on with it until it is whole
    local address=$1 part=$2 left=$TRIES before after code message
    message=$(mktemp)
    while true; do
        before=$(stat -c %s "$part" 2>/dev/null || echo 0)
        code=0
        request --fail --location --continue-at - --output "$part" "$address" 2>"$message" || code=$?
        [ "$code" != 0 ] || break
        after=$(stat -c %s "$part" 2>/dev/null || echo 0)
        # 22 with 416: nothing is left to fetch. 33 and 36: the server cannot go on with a file.
        if [ "$code" = 22 ] && grep -q 416 "$message"; then break; fi
        if [ "$code" = 33 ] || [ "$code" = 36 ]; then rm -f "$part"; fi
        if [ "$after" -gt "$before" ]; then left=$TRIES; else left=$((left - 1)); fi
        if [ "$left" = 0 ]; then
            local text
            text=$(sed 's/^curl: //' "$message")
            rm -f "$message"
            unreachable "$address" "$text; $after bytes are there, the next start goes on with them"
        fi
        echo "download: broke off at $after bytes ($(sed 's/^curl: //' "$message")); going on" >&2
        sleep "${RETRY_SECONDS:-2}"
    done
    rm -f "$message"
}

record() {   # name, sum
    [ -z "$(recorded_sum "$1")" ] || return 0
    echo "$2  $1.parquet" >>"$DATA_DIR/SHA256SUMS"
}

fetch() {   # name
    local name=$1 file=$DATA_DIR/$1.parquet address sum recorded
    local part=$file.part
    address=$(address_of "$name") recorded=$(recorded_sum "$name")
    if [ -f "$file" ]; then
        sum=$(sum_of "$file")
        if [ -n "$recorded" ] && [ "$sum" != "$recorded" ]; then
            fail "$file is not what was downloaded: its SHA-256 is $sum, SHA256SUMS says $recorded. Remove it to fetch it anew."
        fi
        record "$name" "$sum"
        echo "$file: there, SHA-256 $([ -n "$recorded" ] && echo "as recorded" || echo "recorded now")"
        return
    fi
    case ${HF_HUB_OFFLINE:-0} in
        1 | true | TRUE | yes | YES | on | ON) fail "$file is not there, and HF_HUB_OFFLINE is set. Unset it, or copy the file." ;;
    esac
    echo "$file: from $address"
    expect "$address"
    for attempt in 1 2; do
        transfer "$address" "$part"
        sum=$(sum_of "$part")
        if [ -z "$WANTED_SUM" ] || [ "$sum" = "$WANTED_SUM" ]; then break; fi
        rm -f "$part"
        [ "$attempt" = 1 ] || fail "$address: SHA-256 is $sum, the hub says $WANTED_SUM. Try again, or another HF_ENDPOINT."
        echo "download: the file is damaged, or another revision was begun before; fetching all of it anew" >&2
    done
    if [ -n "$recorded" ] && [ "$sum" != "$recorded" ]; then
        fail "$address: SHA-256 is $sum, SHA256SUMS says $recorded: the file on the hub has changed. It is kept as $part.
  Set REVISION to the commit that you had, or take the line out of SHA256SUMS to accept the new one."
    fi
    [ "$(head -c 4 "$part")" = PAR1 ] || fail "$address: is no parquet file; what came is kept as $part."
    mv "$part" "$file"
    record "$name" "$sum"
    echo "$file: $(stat -c %s "$file") bytes, SHA-256 $([ -n "$WANTED_SUM" ] && echo "as the hub says" || echo "recorded; the hub names none")"
}

for name in "${NAMES[@]}"; do fetch "$name"; done
