;;; demon-lsp.el --- demon in Emacs 29 or later, over eglot -*- lexical-binding: t; -*-
;; (load "demon-lsp.el") in your init file. C-c C-c evaluates the block around point.
(require 'eglot)

(define-derived-mode demon-score-mode prog-mode "demon"
  "Scores of demon_live."
  (setq-local comment-start "# "))

(defun demon-lsp--run (word &rest arguments)
  "Run the command WORD of the server with ARGUMENTS."
  (jsonrpc-request (eglot-current-server) :workspace/executeCommand
                   (list :command (concat "demon." word) :arguments (vconcat arguments))))

(defun demon-lsp--uri ()
  "The URI of this buffer."
  (plist-get (eglot--TextDocumentIdentifier) :uri))

(defun demon-lsp-evaluate ()
  "Evaluate the block or paragraph around point."
  (interactive)
  (demon-lsp--run "evaluate" (demon-lsp--uri) (1- (line-number-at-pos))))

(defun demon-lsp-file ()
  "Play the whole buffer, saved or not."
  (interactive)
  (demon-lsp--run "evaluateFile" (demon-lsp--uri)))

(defun demon-lsp-hush ()
  "Silence all decks."
  (interactive)
  (demon-lsp--run "hush"))

(define-key demon-score-mode-map (kbd "C-c C-c") #'demon-lsp-evaluate)
(define-key demon-score-mode-map (kbd "C-c C-b") #'demon-lsp-file)
(define-key demon-score-mode-map (kbd "C-c C-h") #'demon-lsp-hush)
(add-to-list 'auto-mode-alist '("\\.demon\\'" . demon-score-mode))
(add-to-list 'eglot-server-programs '(demon-score-mode . ("demon" "lsp")))
(add-hook 'demon-score-mode-hook #'eglot-ensure)
