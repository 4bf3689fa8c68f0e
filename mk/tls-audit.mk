.PHONY: tls-audit
tls-audit: $(VENV)/.tested build ## testssl.sh on a gateway's HTTPS listeners; needs testssl.sh; ARGS=--quick for a minute's form
	@$(BIN)/python tools/tls_audit.py $(ARGS)
