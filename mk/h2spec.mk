.PHONY: h2spec
h2spec: $(VENV)/.tested build ## h2spec in strict mode over h2c and TLS; needs go
	@PATH=$$PATH:/usr/local/go/bin command -v go || { echo "h2spec is built with go, which is not here" >&2; exit 1; }
	$(BIN)/python -m pytest -v -rP tests/e2e/test_h2spec.py
