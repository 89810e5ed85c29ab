" Live coding with demon in vim and neovim: put this file into ~/.vim/plugin (or source it).
"   Ctrl-e  the line, or the selected lines      \e  the paragraph around the cursor
"   \f      the whole buffer, saved or not       \.  hush
" Errors go to the location list and to the status line; the sound goes on.

if exists('g:loaded_demon') | finish | endif
let g:loaded_demon = 1
if !exists('g:demon_command') | let g:demon_command = 'demon' | endif

function! s:Answer(reply) abort
  if v:shell_error
    let l:before = &g:errorformat
    let &g:errorformat = '%f:%l:%c: %m,%-G%.%#'
    silent lgetexpr a:reply
    let &g:errorformat = l:before
    echohl ErrorMsg | echo split(a:reply, "\n")[0] | echohl None
  else
    call setloclist(0, [])
    echo trim(join(split(a:reply, "\n"), ' ·'))
  endif
endfunction

" Evaluate lines first..last, as the prompt would.
function! DemonSend(first, last) abort
  let l:place = shellescape(expand('%:p') . ':' . a:first)
  call s:Answer(system(g:demon_command . ' send - --at ' . l:place, getline(a:first, a:last)))
endfunction

" The buffer is all that this score says, saved or not.
function! DemonFile() abort
  let l:file = shellescape(expand('%:p'))
  call s:Answer(system(g:demon_command . ' send - --as ' . l:file, getline(1, '$')))
endfunction

function! DemonSay(text) abort
  call s:Answer(system(g:demon_command . ' send -e ' . shellescape(a:text)))
endfunction

function! s:Paragraph() abort
  let l:first = search('^\s*$', 'bnW') + 1
  let l:last = search('^\s*$', 'nW')
  call DemonSend(l:first, l:last ? l:last - 1 : line('$'))
endfunction

command! -range DemonSend call DemonSend(<line1>, <line2>)
command! DemonFile call DemonFile()
command! DemonHush call DemonSay('hush')

augroup demon
  autocmd!
  autocmd BufRead,BufNewFile *.demon setlocal filetype=demon commentstring=#\ %s
  autocmd FileType demon nnoremap <buffer> <silent> <C-e> :call DemonSend(line('.'), line('.'))<CR>
  autocmd FileType demon xnoremap <buffer> <silent> <C-e> :DemonSend<CR>
  autocmd FileType demon nnoremap <buffer> <silent> <leader>e :call <SID>Paragraph()<CR>
  autocmd FileType demon nnoremap <buffer> <silent> <leader>f :DemonFile<CR>
  autocmd FileType demon nnoremap <buffer> <silent> <leader>. :DemonHush<CR>
augroup END
