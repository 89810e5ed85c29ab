;;; demon.el --- Live coding with demon -*- lexical-binding: t; -*-
;; (load "/path/to/demon.el"), then open a .demon file.
;; C-c C-c paragraph, C-c C-r region, C-c C-l line, C-c C-b whole buffer, C-c C-h hush.

(require 'compile)

(defvar demon-command "demon" "The demon program.")

(defun demon--call (text &rest args)
  "Run demon send with ARGS and TEXT on its standard input; show the answer."
  (let ((buffer (get-buffer-create "*demon*")))
    (with-current-buffer buffer
      (let ((inhibit-read-only t)) (erase-buffer)))
    (let ((code (with-temp-buffer
                  (insert text)
                  (apply #'call-process-region (point-min) (point-max)
                         demon-command nil buffer nil "send" args))))
      (with-current-buffer buffer
        (compilation-minor-mode 1)
        (message "%s" (string-trim (buffer-string))))
      (unless (eq code 0) (display-buffer buffer)))))

(defun demon-send-region (begin end)
  "Evaluate the region, as the prompt would."
  (interactive "r")
  (demon--call (buffer-substring-no-properties begin end) "-" "--at"
               (format "%s:%d" (or buffer-file-name "buffer") (line-number-at-pos begin))))

(defun demon-send-line ()
  "Evaluate the current line."
  (interactive)
  (demon-send-region (line-beginning-position) (line-end-position)))

(defun demon-send-paragraph ()
  "Evaluate the lines around point, up to blank ones."
  (interactive)
  (save-excursion
    (let ((end (progn (forward-paragraph) (point)))
          (begin (progn (backward-paragraph) (skip-chars-forward "\n") (point))))
      (demon-send-region begin end))))

(defun demon-send-buffer ()
  "This buffer, saved or not, is all that its score says."
  (interactive)
  (demon--call (buffer-substring-no-properties (point-min) (point-max))
               "-" "--as" buffer-file-name))

(defun demon-hush () "Silence." (interactive) (demon--call "" "-e" "hush"))

(defvar demon-mode-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "C-c C-c") #'demon-send-paragraph)
    (define-key map (kbd "C-c C-r") #'demon-send-region)
    (define-key map (kbd "C-c C-l") #'demon-send-line)
    (define-key map (kbd "C-c C-b") #'demon-send-buffer)
    (define-key map (kbd "C-c C-h") #'demon-hush)
    map))

(define-derived-mode demon-mode prog-mode "demon"
  "Scores of demon."
  (setq-local comment-start "# "))

(add-to-list 'auto-mode-alist '("\\.demon\\'" . demon-mode))
(provide 'demon)
;;; demon.el ends here
