# Types a command line in a zsh of its own and presses the tab key. Prints what the line is
# afterwards, then what zsh has offered, one a line.
#
#     zsh -f offers.zsh DIRECTORY_OF_THE_COMPLETION LINE
zmodload zsh/zpty || exit 1
export COMPLETION=$1 OFFERS=$(mktemp) TERM=dumb
line=$2

setup=$(mktemp)
cat >$setup <<'END'
PROMPT=
fpath=($COMPLETION $fpath)
autoload -Uz compinit
compinit -D -u
bindkey '^I' complete-word
zstyle ':completion:*' insert-tab false
# What the completion adds to the offers, as far as it begins as the word does.
compadd() {
    local -a offers
    if [[ ${@[1,(i)--]} != *-[OAD]\ * ]]; then
        builtin compadd -O offers "$@"
        print -rl -- $offers >>$OFFERS
    fi
    builtin compadd "$@"
}
show_line() {
    print -r -- $BUFFER >$OFFERS.line
}
zle -N show_line
bindkey '^X' show_line
print ready
END

await() {
    repeat 400; do
        eval "$1" && return
        sleep 0.05
    done
    print -u2 "not within 20 s: $1"
    exit 1
}

zpty -b shell zsh -f -i
zpty -w shell ". $setup"
output=
await 'zpty -rt shell part && output+=$part; [[ $output == *ready* ]]'
zpty -w -n shell $line$'\t'
zpty -w -n shell $'\x18'
await '[[ -s $OFFERS.line ]]'
cat $OFFERS.line $OFFERS
zpty -d shell
rm -f $setup $OFFERS $OFFERS.line
