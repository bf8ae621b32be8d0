# Completes commands, options, modules and snapshots of rsyncd-snapshot in bash.
#
# Install it as /usr/share/bash-completion/completions/rsyncd-snapshot, or let ~/.bashrc read it.
#
# The program itself is asked: `--help` lists commands and options, and the hidden command
# `complete` prints the names of modules and snapshots. So nothing here gets out of date. Names are
# shown to users who may read them, in most cases root.
#
# shellcheck shell=bash

# The word as the program gets it. Nothing that was typed is evaluated.
_rsyncd_snapshot_unquoted() {
    local word=$1
    word=${word//[\"\']/}
    printf '%s' "${word//\\/}"
}

# Offers those of the lines of standard input that begin with the current word.
_rsyncd_snapshot_offer() {
    local line
    while IFS= read -r line; do
        [[ $line == "$wanted"* ]] || continue
        # Within quotes, the shell takes each character as it is.
        [[ $current == [\"\']* ]] || printf -v line '%q' "$line"
        COMPREPLY+=("$line")
    done
}

_rsyncd_snapshot() {
    local current=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]}
    local wanted command='' value_of='' help='' usage word position
    local configuration=() names=()
    COMPREPLY=()
    wanted=$(_rsyncd_snapshot_unquoted "$current")
    help=$("$program" --help 2>/dev/null) || return
    for ((position = 1; position < COMP_CWORD; position++)); do
        word=$(_rsyncd_snapshot_unquoted "${COMP_WORDS[position]}")
        case $word in
            =) continue ;;
            # What follows is a command of its own.
            --)
                compopt -o default 2>/dev/null
                return
                ;;
        esac
        if [[ -n $value_of ]]; then
            case $value_of in
                --config | --rsyncd-conf) configuration+=("$value_of" "$word") ;;
            esac
            value_of=''
        elif [[ $word == -* ]]; then
            grep -Eq "^ *(-., )?$word <" <<<"$help" && value_of=$word
        elif [[ -z $command ]]; then
            command=$word
            help=$("$program" "$command" --help 2>/dev/null) || return
        else
            names+=("$word")
        fi
    done
    if [[ $current == = && -n $value_of ]]; then
        current='' wanted=''
    fi
    case $value_of in
        '') ;;
        --to | --config | --rsyncd-conf | --policy | --output | --path | --unit-directory)
            compopt -o default 2>/dev/null
            return
            ;;
        *) return ;;
    esac
    if [[ $current == -* ]]; then
        _rsyncd_snapshot_offer < <(sed -En 's/^ *(-., )?(--[a-z-]+).*/\2/p' <<<"$help")
        return
    fi
    if [[ -z $command ]]; then
        _rsyncd_snapshot_offer \
            < <(sed -n '/^Commands:/,/^Options:/s/^  \([a-z-]*\)  .*/\1/p' <<<"$help")
        return
    fi
    usage=$(sed -n '/^Usage:/,/^$/p' <<<"$help")
    case ${#names[@]}:$command:$usage in
        *:help:*) return ;;
        # A path in the working directory needs no module.
        0:versions:*)
            compopt -o default 2>/dev/null
            names=()
            ;;
        0:*MODULE* | *'MODULE]...'*) names=() ;;
        *:undelete:* | *:expire:* | [1-9]*:*NAME...* | 1:*NAME* | [12]:diff:*)
            names=("${names[0]}")
            [[ $command == undelete ]] && names+=(--expired)
            ;;
        *)
            compopt -o default 2>/dev/null
            return
            ;;
    esac
    _rsyncd_snapshot_offer \
        < <("$program" complete "${names[@]}" "${configuration[@]}" 2>/dev/null)
}

complete -F _rsyncd_snapshot rsyncd-snapshot
