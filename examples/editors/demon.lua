-- demon in Neovim (0.7 or later), over `demon lsp`: put this file into ~/.config/nvim/plugin.
--   Ctrl-e  the block or paragraph around the cursor      \f  the whole buffer, saved or not
--   \.      hush          K  help          \a  fixes          gd  definition
-- Errors show as you type; what the session says shows below. The sound goes on.

local command = vim.g.demon_lsp or { 'demon', 'lsp' }

local function run(word, arguments)
  vim.lsp.buf_request(0, 'workspace/executeCommand',
    { command = 'demon.' .. word, arguments = arguments },
    function(fault, reply)
      local lines = fault and { fault.message } or reply.error or reply.messages
      vim.notify(table.concat(lines, ' · '), fault and vim.log.levels.ERROR or nil)
    end)
end

vim.api.nvim_create_autocmd({ 'BufRead', 'BufNewFile' }, {
  pattern = '*.demon',
  callback = function(event)
    local id = vim.lsp.start_client({
      name = 'demon', cmd = command, root_dir = vim.fn.getcwd(),
      handlers = { ['window/showMessage'] = function() end }, -- run() shows replies
    })
    vim.lsp.buf_attach_client(event.buf, id)
    local uri = vim.uri_from_bufnr(event.buf)
    local function map(keys, call) vim.keymap.set('n', keys, call, { buffer = event.buf }) end
    map('<C-e>', function() run('evaluate', { uri, vim.fn.line('.') - 1 }) end)
    map('\\f', function() run('evaluateFile', { uri }) end)
    map('\\.', function() run('hush', {}) end)
    map('K', vim.lsp.buf.hover)
    map('\\a', vim.lsp.buf.code_action)
    map('gd', vim.lsp.buf.definition)
    vim.bo[event.buf].omnifunc = 'v:lua.vim.lsp.omnifunc'
    vim.bo[event.buf].commentstring = '# %s'
  end,
})
